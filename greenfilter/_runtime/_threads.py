"""Handlers with ``thread=True``: gevent's thread pool, made when first needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Context
from typing import Any

from gevent.threadpool import ThreadPool

from .._log import logger

# Four busy threads delay the loop 125 ms (99th percentile) at the default of 5 ms, 8 ms so.
_SWITCH_INTERVAL = 0.0002
# Threads that hang are replaced up to this many times the size of the pool.
_REPLACED = 4


class Threads:
    """A pool of OS threads, apart from the one that gevent resolves names in.

    A thread whose call nobody waits for any more is replaced by another one for as long as it
    does not come back, up to a limit.

    Args:
        size: threads at most, but for those that hang.

    Attributes:
        on_worn_out: called each time that a call is given up and its thread is not replaced.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool: ThreadPool | None = None
        self._hanging: list[_Attempt] = []
        self.on_worn_out: Callable[[], None] = lambda: None

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the pool and wait for it. Switches greenlets.

        A caller that is interrupted does not stop the thread; what it gives is dropped, and a call
        that has not begun by then is not made.
        """
        if self._pool is None:
            self._pool = ThreadPool(self._size)
            sys.setswitchinterval(_SWITCH_INTERVAL)
        elif self._hanging:
            self._fit(self._pool)
        attempt = _Attempt(fn, args)
        try:
            value, error = self._pool.apply(attempt.make)
        except BaseException:
            attempt.awaited = False
            if attempt.begun and not attempt.ended:
                self._give_up(self._pool, attempt)
            raise
        if error is not None:
            raise error
        return value

    def _give_up(self, pool: ThreadPool, attempt: _Attempt) -> None:
        self._hanging.append(attempt)
        self._fit(pool)
        most = self._size * _REPLACED
        if len(self._hanging) <= most:
            logger.warning(
                "a thread hangs in a callback with thread=True and is replaced (%d of at most %d)",
                *(len(self._hanging), most),
            )
        else:
            logger.error(
                "%d threads hang in callbacks with thread=True; no more of them are replaced",
                len(self._hanging),
            )
            self.on_worn_out()

    def _fit(self, pool: ThreadPool) -> None:
        """Have as many threads as there are to be besides those that hang."""
        self._hanging = [attempt for attempt in self._hanging if not attempt.ended]
        size = self._size + min(len(self._hanging), self._size * _REPLACED)
        if size != pool.maxsize:
            pool.maxsize = size


class _Attempt:
    """One call in a thread, in a context of its own."""

    __slots__ = ("args", "awaited", "begun", "ended", "fn")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.args = args
        self.awaited = True
        self.begun = False
        self.ended = False

    def make(self) -> tuple[Any, BaseException | None]:
        """Keep errors from gevent, which would print them, and end the process at a SystemExit."""
        self.begun = True
        try:
            return (Context().run(self.fn, *self.args) if self.awaited else None), None
        except BaseException as error:
            return None, error
        finally:
            self.ended = True
