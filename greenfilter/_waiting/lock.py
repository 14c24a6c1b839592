"""The lock that everything else in threading and queue is made of."""

from __future__ import annotations

import _thread
import time
from collections import deque
from contextlib import suppress
from types import TracebackType

from .where import parked

_allocate_lock = _thread.allocate_lock
_now = time.monotonic


class Lock:
    """``threading.Lock`` for greenlets of the loop and for threads, in any mixture.

    A native lock says who has it, which nobody waits for: whoever does not get it is parked in
    ``_waiting``, the way that suits its thread. Whoever releases it wakes the first, who tries
    again. One who was woken and leaves without the lock wakes the next.
    """

    __slots__ = ("__weakref__", "_lock", "_waiting")

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._waiting: deque[object] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, as :meth:`threading.Lock.acquire` does. May switch greenlets."""
        if timeout != -1:
            if not blocking:
                raise ValueError("can't specify a timeout for a non-blocking call")
            if timeout < 0:
                raise ValueError("timeout value must be a non-negative number")
            if timeout > _thread.TIMEOUT_MAX:
                raise OverflowError("timeout value is too large")
        if self._lock.acquire(False):
            return True
        return bool(blocking) and self._wait(timeout)

    def _wait(self, timeout: float) -> bool:
        end = _now() + timeout
        woken = False
        while True:
            ticket = parked()
            if woken:  # it was its turn, and another one was faster
                self._waiting.appendleft(ticket)
            else:
                self._waiting.append(ticket)
            try:
                if self._lock.acquire(False):
                    self._leave(ticket)
                    return True
                woken = ticket.wait(max(end - _now(), 0.0) if timeout >= 0 else -1)
            except BaseException:
                self._leave(ticket)
                self._wake_next()
                raise
            if self._lock.acquire(False):
                self._leave(ticket)
                return True
            if not woken:
                self._leave(ticket)
                self._wake_next()
                return False

    def _leave(self, ticket: object) -> None:
        with suppress(ValueError):  # it was woken
            self._waiting.remove(ticket)

    def _wake_next(self) -> None:
        if not self._lock.locked():
            try:
                ticket = self._waiting.popleft()
            except IndexError:
                return
            ticket.wake()  # type: ignore[attr-defined]

    def release(self) -> None:
        """Release the lock, whoever has it. Never switches greenlets.

        Raises:
            RuntimeError: nobody has it.
        """
        self._lock.release()
        if self._waiting:
            self._wake_next()

    def locked(self) -> bool:
        """Return whether somebody has the lock."""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._lock = _allocate_lock()
        self._waiting = deque()

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        return f"<{state} {type(self).__name__} at {id(self):#x}>"
