"""Make threads that are started outside the loop real threads, and greenlets in the loop."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent.thread  # type: ignore[import-not-found]
import gevent.threading  # type: ignore[import-not-found]

from .lock import Lock
from .where import is_loop

_native_start = _thread.start_new_thread
_start_greenlet = gevent.thread.start_new_thread
_get_ident = gevent.thread.get_ident
_NativeThread: Any = threading.Thread
_GreenThread: Any = gevent.threading.Thread
# Until Python 3.12 a thread has a lock that is released at its end, since 3.13 a handle.
_HAS_HANDLES = hasattr(_thread, "start_joinable_thread")


def _start(function: Callable[..., object], args: tuple[Any, ...] = (), kwargs: Any = None) -> int:
    """Replace ``_thread.start_new_thread``."""
    if is_loop():
        return _start_greenlet(function, args, kwargs)  # type: ignore[no-any-return]
    return _native_start(_run, (function, args, kwargs or {}))


def _run(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run a native thread, and tell those that join it of its end."""
    try:
        function(*args, **kwargs)
    finally:
        thread = getattr(function, "__self__", None)
        lock = getattr(thread, "_tstate_lock", None)
        if isinstance(thread, _NativeThread) and lock is not None:
            with suppress(RuntimeError):  # it has been released: the process ends
                lock.release()
            thread._stop()


_set_lock_of_greenlet = getattr(_GreenThread, "_set_tstate_lock", None)


def _set_tstate_lock(thread: Any) -> None:
    """Make the lock that is released when a thread ends: by its greenlet, or by :func:`_run`."""
    if is_loop():
        assert _set_lock_of_greenlet is not None
        _set_lock_of_greenlet(thread)
    else:
        _NativeThread._set_tstate_lock(thread)


class _Handle(gevent.thread._ThreadHandle):  # type: ignore[misc, unused-ignore]
    """What a thread is joined by, since Python 3.13."""

    _end: Lock | None = None  # held as long as a native thread runs
    _native_ident: int | None = None

    def run(self, function: Callable[[], object]) -> None:
        """Run a native thread. In that thread."""
        self._native_ident = _get_ident()
        try:
            function()
        finally:
            if self._end is not None:
                self._end.release()

    def begin(self) -> None:
        """Become the handle of a native thread that is about to start."""
        if self._had_greenlet or self._end is not None:
            raise RuntimeError("thread already started")
        self._end = Lock()
        self._end.acquire()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended."""
        if self._end is None:
            super().join(-1 if timeout is None else timeout)
        elif self._native_ident == _get_ident():
            raise RuntimeError("Cannot join current thread")
        elif self._end.acquire(True, -1 if timeout is None or timeout < 0 else timeout):
            self._end.release()

    @property
    def ident(self) -> int | None:
        """The number of the thread."""
        return self._native_ident if self._end is not None else super().ident

    def is_done(self) -> bool:
        """Return whether the thread has ended."""
        return not self._end.locked() if self._end is not None else super().is_done()

    def _set_done(self, enter_hub: bool = True) -> None:
        if self._end is None:
            super()._set_done(enter_hub)


def _start_joinable(
    function: Callable[[], object], handle: Any = None, daemon: bool = True
) -> _Handle:
    """Replace ``_thread.start_joinable_thread``."""
    handle = _Handle() if handle is None else handle
    if is_loop():
        greenlet = gevent.thread._start_new_greenlet(function)
        if handle._had_greenlet or handle._end is not None:
            raise RuntimeError("thread already started")
        handle._set_greenlet(greenlet)
    else:
        handle.begin()
        _native_start(handle.run, (function,))
    return handle  # type: ignore[no-any-return]


def share() -> None:
    """Put our locks and threads into gevent before it patches the standard library with them."""
    names: dict[str, Any] = {
        "allocate_lock": Lock,
        "LockType": Lock,
        "lock": Lock,
        "start_new_thread": _start,
        "_allocate_lock": Lock,
        "Lock": Lock,
        "_set_sentinel": Lock,
        "_start_new_thread": _start,
    }
    if _HAS_HANDLES:
        names |= {
            "start_joinable_thread": _start_joinable,
            "_start_joinable_thread": _start_joinable,
            "_ThreadHandle": _Handle,
        }
    else:
        _GreenThread._set_tstate_lock = _set_tstate_lock
    for module in (gevent.thread, gevent.threading):
        for name, value in names.items():
            if hasattr(module, name):
                setattr(module, name, value)
