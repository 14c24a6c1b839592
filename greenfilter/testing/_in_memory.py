"""A filter that runs in the process of its test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._smtpd.loop_watch import LoopWatch

if TYPE_CHECKING:
    import socket

    from .. import Filter
    from .._runtime import Runtime
    from .._smtpd.oracle import OracleError
    from ._time import Clock


class InMemory:
    """An app in this process, served by the hub of the calling thread."""

    def __init__(self, app: Filter, clock: Clock) -> None:
        self.log: list[str] = []
        self._app = app
        self._clock = clock
        self._watch = LoopWatch(app._registry.handlers())
        self._runtime: Runtime | None = None

    @property
    def fault(self) -> OracleError | None:
        """That a handler kept the loop past its deadline."""
        return self._watch.fault

    def start(self, sock: socket.socket) -> None:
        """Attach the app to the hub."""
        # Not at the top: a filter in a subprocess needs no runtime here.
        from .._runtime import Runtime

        self._runtime = Runtime(self._app, sock, clock=self._clock)
        self._clock.attach(self._runtime.tick)
        self._runtime.start()
        self._watch.start()

    def is_at_rest(self) -> bool:
        """Return whether the app has dealt with all that it has read. Never switches greenlets."""
        assert self._runtime is not None, "start() comes first"
        return self._runtime.is_at_rest()

    def wait(self, timeout: float) -> str | None:
        """Wait for the runtime. Switches greenlets."""
        assert self._runtime is not None, "start() comes first"
        ended = self._runtime.join(timeout)
        self._watch.stop()
        self._clock.detach()
        return "" if ended else None

    def kill(self) -> None:
        """Do nothing: the greenlets go with the process."""
