"""Tell the loop's thread from others, and wait for file descriptors in both kinds."""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent import monkey
from gevent._hub_local import set_default_hub_class, set_hub
from gevent.hub import Hub, Waiter
from greenlet import getcurrent, greenlet

READ, WRITE = 1, 2  # libev's, of gevent's watchers

_get_ident = _thread.get_ident
_allocate_lock = _thread.allocate_lock
_poll = select.poll
_POLL_EVENTS = {
    READ: select.POLLIN,
    WRITE: select.POLLOUT,
    READ | WRITE: select.POLLIN | select.POLLOUT,
}
_LONGEST = 2**31 / 1000 - 1  # seconds that poll(2) can wait


class FromThreads:
    """Calls functions in a loop on behalf of other threads.

    gevent's ``run_callback_threadsafe`` counts in what libev counts too, without the GIL: now and
    then a count is lost, and the loop ends although somebody waits. A watcher of this kind is all
    that libev lets other threads touch (ev_async_send).

    Args:
        loop: gevent's. It goes on for as long as something may still be called.
    """

    def __init__(self, loop: Any) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._loop = loop
        self._watcher = loop.async_()
        self._watcher.start(self._run)

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """Call a function in the loop soon. From any thread; never waits."""
        self._calls.append((fn, args))
        self._watcher.send()

    def stop(self) -> None:
        """Stop calling. In the loop's thread; other threads may still ask for calls."""
        self._watcher.stop()

    def _run(self) -> None:
        while self._calls:
            fn, args = self._calls.popleft()
            self._loop.run_callback(fn, *args)


class _Loop:
    """The thread of the loop, and its hub."""

    def __init__(self) -> None:
        self.thread = 0  # no thread has this number: all wait natively
        self.hub: Any = None
        self.from_threads: FromThreads | None = None


LOOP = _Loop()


def is_loop() -> bool:
    """Return whether this is the loop's thread, where whoever waits lets the others go on."""
    return _get_ident() == LOOP.thread


def replace(module: object, name: str, value: object) -> None:
    """Put something in the place of a name of a module; gevent knows then that it is patched."""
    monkey.patch_item(module, name, value)  # type: ignore[attr-defined]


def adopt() -> None:
    """Make the calling thread the loop's."""
    LOOP.hub = gevent.get_hub()
    LOOP.from_threads = FromThreads(LOOP.hub.loop)
    LOOP.thread = _get_ident()


def run_soon(callback: Callable[..., Any], *args: Any) -> None:
    """Call something in the loop soon, from any thread."""
    if is_loop():
        LOOP.hub.loop.run_callback(callback, *args)
    elif LOOP.from_threads is not None:
        LOOP.from_threads.call(callback, *args)


def wait_fd(fd: int, events: int, timeout: float | None = None) -> bool:
    """Wait until a file descriptor can be read or written.

    Args:
        fd: the descriptor.
        events: ``READ``, ``WRITE`` or both.
        timeout: seconds to wait at most; None waits without limit.

    Returns:
        Whether it is ready; False after the timeout.
    """
    if is_loop():
        return _wait_in_loop(fd, events, timeout)
    poll = _poll()
    poll.register(fd, _POLL_EVENTS[events])
    return bool(poll.poll(None if timeout is None else min(timeout, _LONGEST) * 1000))


def is_ready(fd: int, events: int) -> bool:
    """Return whether a file descriptor can be read or written now. Never switches greenlets."""
    poll = _poll()
    poll.register(fd, _POLL_EVENTS[events])
    return bool(poll.poll(0))


def _wait_in_loop(fd: int, events: int, timeout: float | None) -> bool:
    hub = LOOP.hub
    waiter: Any = Waiter(hub)
    watcher = hub.loop.io(fd, events)
    timer = hub.loop.timer(timeout) if timeout is not None else None
    try:
        watcher.start(waiter.switch, True)
        if timer is not None:
            timer.start(waiter.switch, False, update=True)
        with asyncio_set_aside():
            return bool(waiter.get())
    finally:
        watcher.close()
        if timer is not None:
            timer.close()


@contextlib.contextmanager
def asyncio_set_aside() -> Iterator[None]:
    """Leave the thread to other loops of asyncio while this one waits.

    asyncio has one running loop in each thread. In the loop's thread each greenlet may have one:
    they take turns when they wait.
    """
    events = sys.modules.get("asyncio.events")
    running = events._get_running_loop() if events is not None else None
    if events is None or running is None:
        yield
        return
    events._set_running_loop(None)
    try:
        yield
    finally:
        events._set_running_loop(running)


class _Parked:
    """Whoever waits in a native thread."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._lock.acquire()

    def wake(self) -> None:
        """End the wait, or the next one."""
        self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Wait; return False after the timeout (seconds; negative: none)."""
        return self._lock.acquire(True, min(timeout, _thread.TIMEOUT_MAX))


class _ParkedInLoop:
    """Whoever waits in a greenlet of the loop."""

    __slots__ = ("_waiter", "_woken")

    def __init__(self) -> None:
        self._woken = False
        self._waiter: Any = None

    def wake(self) -> None:
        """End the wait, or the next one. From any thread."""
        self._woken = True
        run_soon(self._switch)

    def _switch(self) -> None:
        if self._waiter is not None:
            self._waiter.switch(None)

    def wait(self, timeout: float) -> bool:
        """Wait; return False after the timeout (seconds; negative: none). Switches greenlets."""
        self._waiter = Waiter(LOOP.hub)
        timer = LOOP.hub.loop.timer(timeout) if timeout >= 0 else None
        try:
            if timer is not None:
                timer.start(self._waiter.switch, None, update=True)
            if not self._woken:
                # asyncio's executors wait for locks while its loop runs.
                with asyncio_set_aside():
                    self._waiter.get()
        finally:
            self._waiter = None
            if timer is not None:
                timer.close()
        return self._woken


def parked() -> _Parked | _ParkedInLoop:
    """Return something to wait for, in this thread, until somebody wakes it up from any."""
    return _ParkedInLoop() if is_loop() else _Parked()


class _Exit(greenlet):
    """Where a forked child ends up when the code that forked it has come to its end."""

    def run(self, *_: object) -> None:
        """End the child."""
        os._exit(0)


class _FreshHub(Hub):  # type: ignore[misc, unused-ignore]
    """The hub of a forked child: with a loop of its own, in which nobody waits."""

    def __init__(self) -> None:
        super().__init__(default=False)


def forget_loop() -> None:
    """Leave the loop to the parent, after a fork: everything waits natively in the child."""
    in_loop = is_loop()
    LOOP.thread = 0
    set_default_hub_class(_FreshHub)
    set_hub(None)  # type: ignore[arg-type]
    here = root = getcurrent()
    while root.parent is not None:
        root = root.parent
    if in_loop and here is not root:
        here.parent = _Exit(None, root)
