"""When the loop gets its turn, also among greenlets that wake up all at once.

The loop wakes every greenlet whose socket or timer is ready before it goes round again. Forty
sessions that have waited and then each compute, or block in C, for 0.3 s would hold it for 12 s.
So a greenlet that is woken when the turn is over goes on in the next one, in its order.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any, Protocol

# Seconds of ready work after which the loop gets its turn: what is answered leaves, timers run.
TURN = 0.02


class Waiting(Protocol):
    """A greenlet that waits for the next turn."""

    woken: tuple[Any, ...] | None

    def go_on(self, args: tuple[Any, ...] = ()) -> Any:
        """Go on now."""


class Turn:
    """The turn that all greenlets of a loop share.

    Args:
        hub: of the loop.

    Attributes:
        end: time at which it is over (monotonic seconds).
        missed: the loop has waited for too long. Set from any thread, for those who are asked so
            often that even looking at the time would cost too much.
        late: woken after its end, and what with; they go on in the next.
    """

    def __init__(self, hub: Any) -> None:
        self.end = 0.0
        self.missed = False
        self.late: deque[tuple[Waiting, tuple[Any, ...]]] = deque()
        self._timer = hub.loop.timer(0)
        # libev calls it after each wait, before what it has waited for.
        self._round = hub.loop.check(ref=False)
        self._round.start(self.begin)

    def begin(self) -> None:
        """Begin a turn."""
        self.missed = False
        self.end = time.monotonic() + TURN

    def stop(self) -> None:
        """Stop watching the loop: whoever is woken now goes on at once."""
        self._round.close()
        self.end = math.inf

    def wake_later(self, waiting: Waiting, args: tuple[Any, ...]) -> None:
        """Let a greenlet go on in the next turn."""
        waiting.woken = args
        self.late.append((waiting, args))
        if not self._timer.active:
            # A callback would run before the loop goes round: it runs up to 50 of them first.
            self._timer.start(self._wake)

    def _wake(self) -> None:
        late = self.late
        while late:
            waiting, args = late[0]
            if waiting.woken is not args:
                late.popleft()  # it was interrupted meanwhile, and waits for it no more
            elif time.monotonic() > self.end:
                break
            else:
                late.popleft()
                waiting.go_on(args)
        if late:
            self._timer.start(self._wake)
