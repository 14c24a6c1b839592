"""``greenfilter run`` and ``greenfilter reload``."""

from __future__ import annotations

import os
import signal
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import _log, _stdio
from .._worker import end_soon, ignore_signals
from ..errors import UsageError

if TYPE_CHECKING:
    from .._supervisor import Options


def run(options: Options, supervised: bool, pidfile: str | None) -> None:
    """Run a filter on fds 0 and 1 until smtpd closes them.

    Args:
        options: the filter, and how to run it.
        supervised: in worker processes, this one being their supervisor.
        pidfile: where to write the process id, for ``greenfilter reload``.

    Raises:
        UsageError: the filter cannot be loaded, or nobody is there to talk to.
    """
    if not _is_stream(0):
        raise UsageError(
            "smtpd starts this, with the protocol on standard input; to look at a filter: "
            f"greenfilter check {options.target}"
        )
    ignore_signals()
    _log.set_up(options.log_level, options.log_format)
    fds = _stdio.take()
    if pidfile is not None:
        _write_pidfile(pidfile)
    try:
        if supervised:
            from .._supervisor import Supervisor

            sys.exit(Supervisor(options, fds).run())
        _run_here(options, fds)
    finally:
        if pidfile is not None:
            _remove_pidfile(pidfile)


def _is_stream(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)


def _run_here(options: Options, fds: tuple[int, int]) -> None:
    _stdio.keep_from_children(fds)

    from .._waiting import patch

    patch()

    from .._load import load
    from .._runtime import Runtime

    Runtime(load(options.target, options.args), fds).run()
    end_soon()


def _write_pidfile(path: str) -> None:
    try:
        # Whoever may write it tells root which process to signal.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        with open(fd, "w") as file:
            file.write(f"{os.getpid()}\n")
    except OSError as error:
        raise UsageError(f"--pidfile {path}: {error.strerror}") from error


def _remove_pidfile(path: str) -> None:
    """Remove it, unless another process has written it since."""
    with suppress(OSError, ValueError):
        if _read_pidfile(path) == os.getpid():
            os.unlink(path)


def _read_pidfile(path: str) -> int:
    with open(path) as file:
        pid = int(file.read())
    if pid <= 0:  # to kill(2), a group of processes, or all
        raise ValueError(f"{pid} is no process id")
    return pid


def reload(pidfile: str) -> None:
    """Have a running supervisor load its filter anew.

    Raises:
        UsageError: there is no such process.
    """
    try:
        os.kill(_read_pidfile(pidfile), signal.SIGHUP)
    except FileNotFoundError as error:
        raise UsageError(f"{pidfile}: no such file; start with run --pidfile {pidfile}") from error
    except ValueError as error:
        raise UsageError(f"{pidfile}: no process id in it") from error
    except OSError as error:
        raise UsageError(f"{pidfile}: {error.strerror}") from error
