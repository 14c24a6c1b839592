"""The clock of a test, which moves deadlines, session timeouts and the filter's own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps

import gevent

# An advance is made of steps, as what is due at one may set another deadline.
_STEPS = 400
_LEAST_STEP = 0.1
_NANOSECONDS = 1_000_000_000
_monotonic = time.monotonic


class _ProcessTime:
    """What ``time.time`` and ``time.monotonic`` give in this process, moved by the clocks.

    They are moved, never stopped: code that waits with them goes on.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._installed = False

    def install(self) -> None:
        """Replace the functions; what has imported them by name before keeps the old ones."""
        if self._installed:
            return
        self._installed = True
        for name in ("time", "monotonic"):
            self._replace(name, lambda: self.seconds)
        for name in ("time_ns", "monotonic_ns"):
            self._replace(name, lambda: round(self.seconds * _NANOSECONDS))

    @staticmethod
    def _replace(name: str, added: Callable[[], float]) -> None:
        real = getattr(time, name)
        setattr(time, name, wraps(real)(lambda: real() + added()))


process_time = _ProcessTime()


class Clock:
    """Tells an app in this process what time it is.

    At first it is a plain clock. From the first :meth:`freeze` or :meth:`advance` on, the time of
    deadlines stands still but for what the test adds, so that a deadline of an hour passes in no
    time, and one of a second does not pass because the machine is slow.

    What the test adds, ``time.time``, ``time.monotonic`` and their ``_ns`` forms give as well, in
    the whole process and until the server is stopped; but these run on by themselves.
    ``time.sleep`` still takes its time, and ``datetime.now()`` is the machine's.
    """

    def __init__(self) -> None:
        self._now: float | None = None
        self._tick: Callable[[], None] | None = None
        self._added = 0.0

    def __call__(self) -> float:
        """Return the time in seconds. Never switches greenlets."""
        return _monotonic() if self._now is None else self._now

    def freeze(self) -> None:
        """Stop the time of deadlines. Never switches greenlets."""
        self._now = self()

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due with it happen. Switches greenlets.

        Whatever has been started by now, such as ``smtpd.start(session.mail_from, ...)``, gets as
        far as it can before time begins to pass.

        Args:
            seconds: how much.
        """
        gevent.idle()
        self.freeze()
        steps = max(1, min(_STEPS, round(seconds / _LEAST_STEP)))
        begin = self()
        for step in range(1, steps + 1):
            self._pass(begin + seconds * step / steps)
            if self._tick is not None:
                gevent.get_hub().loop.run_callback(self._tick)
            gevent.idle()

    def attach(self, tick: Callable[[], None]) -> None:
        """Set what to call, in the hub, when time has passed; it then passes for the process too.

        Args:
            tick: of the runtime.
        """
        self._tick = tick

    def detach(self) -> None:
        """Restore the process's own time. Never switches greenlets."""
        self._tick = None
        process_time.seconds -= self._added
        self._added = 0.0

    def _pass(self, now: float) -> None:
        passed = now - self()
        self._now = now
        if self._tick is not None:
            process_time.install()
            process_time.seconds += passed
            self._added += passed
