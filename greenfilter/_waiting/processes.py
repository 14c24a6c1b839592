"""Pipes and children, for all threads.

gevent's own way to wait for children has libev reap all children of the process, those of other
threads as well. Here each waits for its own.
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]
import io
import os
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import gevent

from .where import READ, WRITE, is_loop, is_ready, replace, wait_fd

_native_read = os.read
_native_write = os.write
_native_system = os.system
_native_waitpid = os.waitpid
# A pipe that can be written takes this much without blocking (pipe(7)); POSIX asks for 512.
_PIPE_BYTES = 4096
# How long a look for a child is off, as a part of the time that it has taken, and in seconds.
_PART, _SHORTEST, _LONGEST = 1 / 8, 0.0005, 0.05


def _read(fd: int, length: int, /) -> bytes:
    """Replace ``os.read``. Switches greenlets in the loop's thread only, to wait for input."""
    if is_loop() and not is_ready(fd, READ) and os.get_blocking(fd):
        wait_fd(fd, READ)
    return _native_read(fd, length)


def _write(fd: int, data: Any, /) -> int:
    """Replace ``os.write``. Switches greenlets in the loop's thread only, at a full pipe."""
    if not is_loop() or not _is_pipe(fd) or not os.get_blocking(fd):
        return _native_write(fd, data)
    with memoryview(data) as view, view.cast("B") as rest:
        done = 0
        while done < len(rest):
            wait_fd(fd, WRITE)
            done += _native_write(fd, rest[done : done + _PIPE_BYTES])
        return done


def _is_pipe(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class _Pipe(io.FileIO):
    """One end of a pipe to a child."""

    def readinto(self, buffer: Any, /) -> int:
        """Read what is there, or wait. Switches greenlets in the loop's thread only."""
        if is_loop():
            wait_fd(self.fileno(), READ)
        return super().readinto(buffer)

    def write(self, data: Any, /) -> int:
        """Write all of it. Switches greenlets in the loop's thread only."""
        return _write(self.fileno(), data)

    # FileIO reads in C; these call readinto().
    read = io.RawIOBase.read  # type: ignore[assignment]
    readall = io.RawIOBase.readall


def _open_pipe(fd: int, mode: str, buffering: int = -1) -> io.IOBase:
    """Open an end of a pipe as ``io.open`` does for :class:`subprocess.Popen`."""
    raw = _Pipe(fd, mode)
    if buffering == 0:
        return raw
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    return io.BufferedReader(raw, size) if "r" in mode else io.BufferedWriter(raw, size)


def _waits(name: str, nothing: Callable[[Any], bool], options: int) -> Callable[..., Any]:
    """Make a call that waits for a child wait in its greenlet, in the loop's thread.

    Args:
        name: of the call in ``os``.
        nothing: tells from what it returns that no child has ended yet.
        options: which argument has its options.
    """
    native = getattr(os, name)

    def wait(*args: Any) -> Any:
        if not is_loop() or len(args) <= options or args[options] & os.WNOHANG:
            return native(*args)
        look = (*args[:options], args[options] | os.WNOHANG, *args[options + 1 :])
        start = time.monotonic()
        while nothing(result := native(*look)):
            gevent.sleep(_pause(time.monotonic() - start))
        return result

    wait.__name__ = wait.__qualname__ = name
    wait.__doc__ = native.__doc__
    return wait


def _wait_for_any() -> tuple[int, int]:
    """Replace ``os.wait``."""
    return os.waitpid(-1, 0)


def _system(command: Any) -> int:
    """Replace ``os.system``. Switches greenlets in the loop's thread only."""
    if not is_loop():
        return _native_system(command)
    code = subprocess.Popen(command, shell=True).wait()
    return -code if code < 0 else code << 8


class _SemLock(_multiprocessing.SemLock):  # type: ignore[misc]
    """What the locks of ``multiprocessing`` are made of."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take it. Switches greenlets in the loop's thread only, where another one has it."""
        if not is_loop() or not block:
            return bool(super().acquire(block, timeout))
        start = time.monotonic()
        while not super().acquire(False):
            passed = time.monotonic() - start
            if timeout is not None and passed >= timeout:
                return False
            gevent.sleep(_pause(passed))
        return True

    def __enter__(self) -> bool:
        return self.acquire()


def _pause(passed: float) -> float:
    """Return the seconds until the next look, after this many of waiting."""
    return min(max(passed * _PART, _SHORTEST), _LONGEST)


def share() -> None:
    """Replace what waits for pipes and for other processes."""
    replace(_multiprocessing, "SemLock", _SemLock)
    replace(os, "read", _read)
    replace(os, "write", _write)
    replace(os, "system", _system)
    replace(os, "wait", _wait_for_any)
    for name, options in {"waitpid": 1, "wait3": 0, "wait4": 1}.items():
        replace(os, name, _waits(name, lambda result: result[0] == 0, options))
    with suppress(AttributeError):
        replace(os, "waitid", _waits("waitid", lambda result: result is None, 2))
    subprocess.io = SimpleNamespace(  # type: ignore[attr-defined]
        open=_open_pipe, TextIOWrapper=io.TextIOWrapper
    )
