"""How to run the workers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """How to run the workers.

    Args:
        target: the filter, as the command line has it.
        args: the filter's own options.
        workers: processes that share the sessions.
        max_memory: bytes that a worker may have resident before it is replaced; 0 for no limit.
            At twice as many it is ended at once.
        hang_seconds: a worker whose loop has not turned for this long is replaced.
        drain_seconds: what a worker that is to be replaced gets to finish its sessions.
        log_level, log_format: for the workers' logs.
    """

    target: str
    args: list[str] = field(default_factory=list)
    workers: int = 1
    max_memory: int = 0
    hang_seconds: float = 10.0
    drain_seconds: float = 300.0
    log_level: str = "info"
    log_format: str = "text"

    def for_worker(self) -> dict[str, object]:
        """Return what a worker process has to know of them."""
        names = ("target", "args", "log_level", "log_format")
        return {name: getattr(self, name) for name in names}
