"""The time that deadlines and forgotten sessions go by, in the hand of a test."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

# An advance is made of steps, as what is due at one may set another deadline.
_STEPS = 400
_LEAST_STEP = 0.1


class Clock:
    """Tells the runtime of an app in this process what time it is.

    At first it is a plain clock. From the first :meth:`freeze` or :meth:`advance` on, time stands
    still but for what the test adds, so that a deadline of an hour passes in no time, and one of
    a second does not pass because the machine is slow. Only the runtime goes by it: ``time.sleep``
    in a handler still takes its time. A cache of the filter's own can be given the clock::

        cachetools.TTLCache(1000, ttl=3600, timer=smtpd.clock)
    """

    def __init__(self) -> None:
        self._now: float | None = None
        self._tick: Callable[[], None] | None = None

    def __call__(self) -> float:
        """Give the time in seconds. Never switches greenlets."""
        return time.monotonic() if self._now is None else self._now

    def freeze(self) -> None:
        """Stop the time. Never switches greenlets."""
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
            self._now = begin + seconds * step / steps
            if self._tick is not None:
                gevent.get_hub().loop.run_callback(self._tick)
            gevent.idle()

    def attach(self, tick: Callable[[], None]) -> None:
        """Say what to call, in the hub, when time has passed."""
        self._tick = tick
