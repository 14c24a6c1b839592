"""A greenlet that is woken when it is its turn.

Not compiled: mypyc cannot build upon greenlet's class.
"""

from __future__ import annotations

import time
from typing import Any

from greenlet import greenlet

from .turn import Turn


class TurnGreenlet(greenlet):
    """A greenlet that is woken when it is its turn.

    Args:
        run: what it does.
        hub: its parent.
        turn: of its loop.

    Attributes:
        woken: what it is to be woken with in the next turn, or None.
        runner: whose greenlet it is.
    """

    def __init__(self, run: Any, hub: Any, turn: Turn) -> None:
        super().__init__(run, hub)
        self._turn = turn
        self.woken: tuple[Any, ...] | None = None
        self.runner: Any = None

    def switch(self, *args: Any) -> Any:
        """Go on, now or in the next turn. gevent calls it in the hub."""
        turn = self._turn
        if turn.late or time.monotonic() > turn.end:
            turn.wake_later(self, args)
            return None
        return super().switch(*args)

    def go_on(self, args: tuple[Any, ...] = ()) -> Any:
        """Go on now."""
        self.woken = None
        return super().switch(*args)

    def throw(self, *args: Any) -> Any:
        """Raise an error in it, in place of what would have woken it."""
        self.woken = None
        return super().throw(*args)
