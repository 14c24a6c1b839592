"""The sole owner of file descriptors 0 and 1.

smtpd gives a filter one socket as both. Whatever else is written there ends the mail server, so
they are moved away before anything of the author's is imported.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import sys

# Above the descriptors that programs count on, so that nothing reuses it by accident.
_LOWEST = 64


def lowest() -> int:
    """Return the lowest descriptor to move things to, out of the way; lower if there are few."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _LOWEST if soft == resource.RLIM_INFINITY else min(_LOWEST, soft // 2)


def open_all() -> None:
    """Make sure that fd 2 is open: a socket that got this number would receive the log."""
    try:
        os.fstat(2)
    except OSError:
        fd = _null(os.O_WRONLY)
        if fd != 2:
            os.dup2(fd, 2)
            os.close(fd)


def _null(mode: int) -> int:
    """Open /dev/null or, where there is none (chroot), a pipe without an end."""
    try:
        return os.open(os.devnull, mode)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
    read, write = os.pipe()
    kept, other = (read, write) if mode == os.O_RDONLY else (write, read)
    os.close(other)
    return kept


def take() -> tuple[int, int]:
    """Move smtpd's socket away from fds 0 and 1.

    From then on fd 0 is /dev/null and fd 1 is stderr, for this process and its children: what
    they print goes to smtpd's log. Children do not inherit the socket.

    Returns:
        The file descriptors to read from and to write to; one and the same under smtpd.
    """
    read = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, lowest())
    same = os.path.sameopenfile(0, 1)
    write = read if same else fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, lowest())
    null = _null(os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    set_up_text()
    return read, write


def set_up_text() -> None:
    """Make print() and the log write any text: mail holds bytes that no locale knows.

    UTF-8 whatever the locale; what has no UTF-8 (a surrogate stands for a byte) is escaped. Each
    line leaves at once: the last words of a process count most.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def keep_from_children(fds: tuple[int, int]) -> None:
    """Keep processes forked from this one from speaking to smtpd or reading what it says.

    Programs that it executes do not inherit the socket in any case. A fork (``os.fork``,
    ``multiprocessing``) does, with the event loop that reads it: it gets a socket instead on which
    nothing ever comes.

    Args:
        fds: of the connection.
    """
    kept: list[socket.socket] = []

    def replace() -> None:
        pair = socket.socketpair()
        kept.extend(pair)  # open for as long as the child lives
        for fd in set(fds):
            os.dup2(pair[0].fileno(), fd, inheritable=False)

    os.register_at_fork(after_in_child=replace)
