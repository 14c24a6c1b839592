"""The only owner of file descriptors 0 and 1.

smtpd gives a filter one socket as both. Whatever else is written there ends the mail server, so
they are moved away before anything of the author's is imported.
"""

from __future__ import annotations

import fcntl
import os
import sys

# Above the descriptors that programs count on, so that nothing reuses it by accident.
_LOWEST = 64


def take() -> tuple[int, int]:
    """Move smtpd's socket away from fds 0 and 1.

    From then on fd 0 is /dev/null and fd 1 is stderr, for this process and its children: what
    they print goes to smtpd's log. Children do not inherit the socket.

    Returns:
        The file descriptors to read from and to write to; one and the same under smtpd.
    """
    read = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    same = os.path.sameopenfile(0, 1)
    write = read if same else fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)
    return read, write
