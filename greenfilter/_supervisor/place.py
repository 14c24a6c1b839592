"""A place for one worker, and when the next one may be started in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .process import WorkerProcess

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 30.0
# For a filter that loads: all mail waits, and what has ended it is not tried again and again.
_LONGEST_DELAY_OF_LOADED = 2.0
# A worker that has lived this long, and twice the last delay, was well.
_WELL_SECONDS = 1.0
_WELL = 2.0


class Place:
    """One of the ``--workers``.

    Attributes:
        current: the worker that gets new sessions; None while it waits for the next start.
        coming: the worker that is being started in its place.
        replaces_alone: ``coming`` takes over as soon as it has loaded (not a reload of all).
        next_start: time at which the next worker may be started.
    """

    def __init__(self) -> None:
        self.current: WorkerProcess | None = None
        self.coming: WorkerProcess | None = None
        self.replaces_alone = False
        self.next_start = 0.0
        self._delay = 0.0
        self._failures = 0

    def failed(self, now: float, lived: float) -> float:
        """Note that its worker has ended, and return the seconds to wait before the next.

        It is replaced at once, but when workers end again and again soon after their start, the
        delay doubles.

        Args:
            now: the time.
            lived: seconds since the worker had loaded; 0 if it had not.
        """
        if lived > max(_WELL_SECONDS, _WELL * self._delay):
            self._failures = 0
        self._delay = 0.0
        if self._failures:
            longest = _LONGEST_DELAY_OF_LOADED if lived else _LONGEST_DELAY
            self._delay = min(_FIRST_DELAY * 2 ** min(self._failures - 1, 20), longest)
        self._failures += 1
        self.next_start = now + self._delay
        return self._delay
