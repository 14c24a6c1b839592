"""The file that tells ``greenfilter reload`` which process to signal.

Its process keeps it locked: the number in the file may be another process's by now, the holder of
the lock is known to the system. Locks of this kind are not inherited, and end with the process.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import struct
import sys
from contextlib import suppress

from .._process.log import logger
from ..errors import UsageError

# struct flock: Linux has the type first, the BSDs the offsets.
_FLOCK, _PID = ("hhqqi4x", 4) if sys.platform == "linux" else ("qqihh8x", 2)
# What has more in it than a number is somebody's file, named by mistake.
_MAX_BYTES = 32


class Pidfile:
    """The file of this process. That it cannot be written is logged, and stops nothing.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        try:
            self._fd = _open(path)
        except (OSError, UsageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            logger.error("--pidfile %s: %s; reload will not find this filter", path, reason)

    def remove(self) -> None:
        """Remove it, unless another file lies there by now."""
        if self._fd >= 0:
            with suppress(OSError):
                if os.path.samestat(os.stat(self._path, follow_symlinks=False), os.fstat(self._fd)):
                    os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1


def signal_reload(path: str) -> None:
    """Signal a running supervisor to load its filter again.

    Raises:
        UsageError: no process has the file locked, or it may not be signalled.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; start with run --pidfile {path}") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    try:
        pid = _holder(fd)
        if pid <= 0:  # to kill(2), a group of processes, or all
            raise UsageError(f"{path}: the filter that wrote it is not running; nothing was done")
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    finally:
        os.close(fd)


def _open(path: str) -> int:
    # Whoever may write it tells root which process to signal.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, 0o644)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_size > _MAX_BYTES:
            raise UsageError("not a file of a process id")
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise UsageError(f"process {_holder(fd)} has it") from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _holder(fd: int) -> int:
    """Return the process that has the file locked; 0 if none has."""
    zero = [0] * len(struct.unpack(_FLOCK, bytes(struct.calcsize(_FLOCK))))
    zero[0 if sys.platform == "linux" else 3] = fcntl.F_WRLCK
    told = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_FLOCK, *zero)))
    kind = told[0 if sys.platform == "linux" else 3]
    return 0 if kind == fcntl.F_UNLCK else told[_PID]
