"""Handlers with ``thread=True``: gevent's thread pool, made when first needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from gevent.threadpool import ThreadPool

# Four busy threads delay the loop 125 ms (99th percentile) at the default of 5 ms, 8 ms so.
_SWITCH_INTERVAL = 0.0002


class Threads:
    """A pool of OS threads, apart from the one that gevent resolves names in.

    Args:
        size: threads at most.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool: ThreadPool | None = None

    def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the pool and wait for it. Switches greenlets.

        A caller that is interrupted does not stop the thread; what it gives is dropped, and a call
        that has not begun by then is not made.
        """
        if self._pool is None:
            self._pool = ThreadPool(self._size)
            sys.setswitchinterval(_SWITCH_INTERVAL)
        awaited = [True]
        try:
            value, error = self._pool.apply(_attempt, (awaited, fn, args))
        finally:
            awaited.clear()
        if error is not None:
            raise error
        return value


def _attempt(
    awaited: list[bool], fn: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[Any, BaseException | None]:
    """Keep errors from gevent, which would print them, and end the process at a SystemExit."""
    try:
        return (fn(*args) if awaited else None), None
    except BaseException as error:
        return None, error
