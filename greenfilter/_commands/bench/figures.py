"""What was measured."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

PERCENTILES = (50, 90, 99)


class Latencies:
    """Seconds from question to answer."""

    def __init__(self) -> None:
        self._values = array("d")

    def __len__(self) -> int:
        return len(self._values)

    @property
    def total(self) -> float:
        """The sum of all."""
        return sum(self._values)

    def add(self, seconds: float) -> None:
        """Note one."""
        self._values.append(seconds)

    def summary(self) -> dict[str, float]:
        """Return ``p50``, ``p90``, ``p99`` and ``max``, in seconds."""
        ordered = sorted(self._values)
        last = len(ordered) - 1
        found = {f"p{p}": ordered[min(last, len(ordered) * p // 100)] for p in PERCENTILES}
        return {**found, "max": ordered[last]}


@dataclass(frozen=True, slots=True)
class HandlerTime:
    """Where the time of one handler went.

    Args:
        hook: such as ``filter.connect``.
        name: of the function.
        calls: how many; of a generator, one for each line it gave.
        seconds: from call to return, all calls together.
        cpu_seconds: of these, those in which the processor worked for it. In the others it
            waited: for the network, for the client's next lines, or for its turn.
        queued_seconds: of all its requests, from question to answer, less ``seconds``: what they
            waited for the handler to begin, and the answers to come; None where it is not the
            handler of a request.
    """

    hook: str
    name: str
    calls: int
    seconds: float
    cpu_seconds: float
    queued_seconds: float | None = None


@dataclass(slots=True)
class Figures:
    """One run.

    Args:
        start_seconds: from the start of the process to ``register|ready``.
        seconds: from the first line of the first session to the last answer.
        sessions: that came to their end.
        messages: that were accepted.
        lines: written to the filter.
        bytes: written to the filter.
        filter_cpu: processor seconds of the filter's processes; None where this system does not
            report them, or one of them ended.
        driver_cpu: processor seconds of this process.
        latencies: by phase.
        decisions: how often each was given.
        log: the last lines that the filter logged.
    """

    start_seconds: float = 0.0
    seconds: float = 0.0
    sessions: int = 0
    messages: int = 0
    lines: int = 0
    bytes: int = 0
    filter_cpu: float | None = None
    driver_cpu: float = 0.0
    latencies: dict[str, Latencies] = field(default_factory=dict)
    decisions: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)

    def per_second(self, count: int) -> float:
        """Return a rate."""
        return count / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the result for machines; all times in seconds."""
        return {
            "start_seconds": self.start_seconds,
            "seconds": self.seconds,
            "sessions": self.sessions,
            "messages": self.messages,
            "lines": self.lines,
            "bytes": self.bytes,
            "sessions_per_second": self.per_second(self.sessions),
            "messages_per_second": self.per_second(self.messages),
            "lines_per_second": self.per_second(self.lines),
            "filter_cpu_seconds": self.filter_cpu,
            "driver_cpu_seconds": self.driver_cpu,
            "decisions": dict(self.decisions),
            "phases": {
                phase: {"requests": len(latencies), **latencies.summary()}
                for phase, latencies in self.latencies.items()
            },
        }
