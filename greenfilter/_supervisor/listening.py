"""The time that deadlines and signs of life are judged by."""

from __future__ import annotations

import time

# A turn of the loop counts for no more than this (seconds), however long it took.
_LONGEST_TURN = 0.25


class ListeningTime:
    """A clock that goes on as long as the supervisor listens to its workers.

    While the supervisor was stopped, or did not get the processor, or while smtpd takes nothing so
    that workers are not read, nobody can tell whether a worker has answered. That time is nobody's
    fault, and does not pass here.
    """

    def __init__(self) -> None:
        self._real = self._now = time.monotonic()
        self._listens = True

    def __call__(self) -> float:
        """Return the time (seconds)."""
        return self._now + self._passed(time.monotonic())

    def turn(self) -> None:
        """Begin another turn of the loop."""
        real = time.monotonic()
        self._now += self._passed(real)
        self._real = real

    def set_listening(self, listens: bool) -> None:
        """Run, or stop the clock."""
        if listens != self._listens:
            self.turn()
            self._listens = listens

    def _passed(self, real: float) -> float:
        return min(real - self._real, _LONGEST_TURN) if self._listens else 0.0
