"""Handlers with ``thread=True``: a pool of OS threads, made when first needed.

A call costs 6 us instead of the 33 of gevent's own pool while 20 sessions make them (one alone
costs 60 in both). Here a thread takes its calls from a queue in C, and all that have ended since
the loop last looked are dealt with at once.
"""

from __future__ import annotations

import os
import sys
from _queue import SimpleQueue
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

import gevent
from gevent.hub import Waiter
from gevent.monkey import get_original

from .._process.log import logger
from .._process.mark import NOBODY, SID_BYTES, SLOT_BYTES

# Four busy threads delay the loop 125 ms (99th percentile) at the default of 5 ms, 8 ms so.
_SWITCH_INTERVAL = 0.0002
# Threads that hang are replaced up to this many times the size of the pool.
_REPLACED = 4


class Threads:
    """A pool of OS threads, apart from the one that gevent resolves names in.

    A thread whose call was given up is replaced by another one for as long as it
    does not come back, up to a limit.

    Args:
        size: threads at most, but for those that hang.
        page: where each thread leaves whose code it runs (``_process/mark.py``), or None.
        slots: of the page, that no thread has; shared with other pools.

    Attributes:
        on_worn_out: called each time that a call is given up and its thread is not replaced.
        vital: wraps what the loop calls.
        hanging: calls that were given up and have not ended.
    """

    def __init__(self, size: int, page: Any = None, slots: list[int] | None = None) -> None:
        self.hanging: set[_Call] = set()
        self.vital: Callable[[Callable[..., Any]], Callable[..., None]] = lambda fn: fn
        self.on_worn_out: Callable[[], None] = lambda: None
        self._size = size
        self._page = page
        self._slots = slots if slots is not None else []
        self._threads = 0
        self._calls = 0  # that wait or run, but for those that hang
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._ended: deque[_Call] = deque()
        self._wake: Any = None  # its callback runs in the loop soon after a thread has sent

    def call(self, sid: bytes, report: int, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the pool and wait for it. Switches greenlets.

        A caller that is interrupted does not stop the thread; what it gives is dropped, and a call
        that has not begun by then is not made.

        Args:
            sid: of the session that it is made for.
            report: the number of the report that it handles, else 0.
            fn: the function.
            args: its arguments.

        Raises:
            BaseException: whatever the function raises.
        """
        if self._wake is None:
            self._open()
        call = _Call(sid + bytes([report]), fn, args)
        self._calls += 1
        self._fit()
        self._queue.put(call)
        try:
            call.waiter.get()
        except BaseException:
            call.awaited = False
            if call.begun and not call.ended:
                self._give_up(call)
            raise
        if call.error is not None:
            raise call.error
        return call.value

    def close(self) -> None:
        """End the threads, those that hang when they come back. In the hub's thread."""
        if self._wake is not None:
            self._wake.stop()  # not closed: a thread that hangs may still send
            for _ in range(self._threads):
                self._queue.put(None)

    def _open(self) -> None:
        sys.setswitchinterval(_SWITCH_INTERVAL)
        self._wake = gevent.get_hub().loop.async_()
        self._wake.start(self.vital(self._on_ended))

    def _fit(self) -> None:
        """Start a thread for each call, as far as there may be that many."""
        most = self._size + min(len(self.hanging), self._size * _REPLACED)
        if self._threads < min(self._calls + len(self.hanging), most):
            try:
                get_original("_thread", "start_new_thread")(self._run, ())
            except RuntimeError as error:  # the call waits for another thread, or for its deadline
                logger.error("no thread for a callback with thread=True: %s", error)
            else:
                self._threads += 1

    def _run(self) -> None:
        """Make calls, in a thread, until there are no more."""
        page, slot = self._page, self._slots.pop() if self._slots else 0
        start, end = slot * SLOT_BYTES, slot * SLOT_BYTES + SID_BYTES + 1
        while (call := self._queue.get()) is not None:
            pid = os.getpid()
            if slot:
                page[start:end] = call.mark
            call.make()
            if os.getpid() != pid:  # a child that the author's code has forked, and left to us
                os._exit(0)
            if slot:
                page[start:end] = NOBODY[: SID_BYTES + 1]
            self._ended.append(call)
            self._wake.send()
        if slot:
            self._slots.append(slot)
        gevent.get_hub().destroy(destroy_loop=True)  # the author's code may have used one here

    def _on_ended(self) -> None:
        while self._ended:
            call = self._ended.popleft()
            if call in self.hanging:
                self.hanging.remove(call)
                self._threads -= 1  # there is another one in its place
                self._queue.put(None)
            else:
                self._calls -= 1
                call.waiter.switch(None)

    def _give_up(self, call: _Call) -> None:
        self._calls -= 1
        self.hanging.add(call)
        most = self._size * _REPLACED
        if len(self.hanging) <= most:
            # Soon: calls that are given up at the same time are not to be made first.
            gevent.get_hub().loop.run_callback(self._fit)
            logger.warning(
                "a callback given up still has its thread, which is replaced (%d of at most %d)",
                *(len(self.hanging), most),
            )
        else:
            logger.error(
                "%d callbacks given up still have their threads; no more are replaced",
                len(self.hanging),
            )
            self.on_worn_out()


class _Call:
    """One call in a thread, in a context of its own."""

    __slots__ = ("args", "awaited", "begun", "ended", "error", "fn", "mark", "value", "waiter")

    def __init__(self, mark: bytes, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.mark = mark
        self.fn = fn
        self.args = args
        self.waiter: Any = Waiter()
        self.awaited = True
        self.begun = False
        self.ended = False
        self.value: Any = None
        self.error: BaseException | None = None

    def make(self) -> None:
        """Make it, in a thread, unless it was given up."""
        self.begun = True
        try:
            if self.awaited:
                self.value = Context().run(self.fn, *self.args)
        except BaseException as error:
            self.error = error
        self.ended = True
