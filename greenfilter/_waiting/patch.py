"""Patch the standard library, once in a process."""

from __future__ import annotations

import os
import queue
import signal
import time
from typing import Any

import gevent
from gevent import monkey
from greenlet import getcurrent

from ..errors import WaitError
from . import processes, select, sockets, threads
from .where import adopt, forget_loop, is_loop, replace

_native_sleep = time.sleep
_native_alarm = signal.alarm
_native_setitimer = signal.setitimer


def patch() -> None:
    """Make blocking code wait in its greenlet in the calling thread, natively in all others.

    Call it before anything of the author's is imported, in the thread where the loop will
    run. See the package for what is replaced, and why.
    """
    if monkey.is_module_patched("threading"):
        return
    adopt()
    threads.share()
    monkey.patch_all(
        select=False, queue=False, Event=False, subprocess=False, os=False, signal=False
    )
    replace(queue, "SimpleQueue", queue._PySimpleQueue)  # type: ignore[attr-defined]
    replace(time, "sleep", _sleep)
    select.share()
    sockets.share()
    processes.share()
    replace(signal, "alarm", _alarm)
    replace(signal, "setitimer", _setitimer)
    os.register_at_fork(after_in_child=forget_loop)


def _sleep(seconds: Any, /) -> None:
    """Replace ``time.sleep``. Switches greenlets in the loop's thread only."""
    if not is_loop():
        _native_sleep(seconds)
        return
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    gevent.sleep(seconds)


def _alarm(seconds: int, /) -> int:
    """Replace ``signal.alarm``, which a session can only take back.

    Raises:
        WaitError: a time is given, in a session.
    """
    if seconds and _is_for_a_session():
        raise _no_alarm("signal.alarm()")
    return _native_alarm(seconds)


def _setitimer(which: int, seconds: float, interval: float = 0.0, /) -> tuple[float, float]:
    """Replace ``signal.setitimer``, which a session can only take back.

    Raises:
        WaitError: a time is given, in a session.
    """
    if seconds and _is_for_a_session():
        raise _no_alarm("signal.setitimer()")
    return _native_setitimer(which, seconds, interval)


def _is_for_a_session() -> bool:
    """Return whether this runs beside sessions, and not in the main greenlet as a whole program."""
    return not is_loop() or getcurrent().parent is not None


def _no_alarm(name: str) -> WaitError:
    return WaitError(
        f"{name} interrupts whatever runs in the main thread by then, which is another session's "
        "code as a rule; set the handler deadline=SECONDS, or use gevent.Timeout(SECONDS)"
    )
