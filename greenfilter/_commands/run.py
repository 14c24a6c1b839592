"""``greenfilter run``."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from .._process import log, stderr, stdio
from .._supervisor.worker import end_soon, ignore_signals
from ..errors import UsageError
from .pidfile import Pidfile

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
    stdio.open_all()
    ignore_signals()
    log.set_up(options.log_level, options.log_format)
    try:
        fds = stdio.take()
        sink = stderr.take_over(stdio.lowest()) if supervised else None
        if sink is None:
            stderr.drain_in_a_process(fds, stdio.lowest())
    except OSError as error:
        raise UsageError(f"cannot start: {error.strerror} (see ulimit -a)") from error
    file = Pidfile(pidfile) if pidfile is not None else None
    try:
        if sink is not None:
            from .._supervisor import Supervisor

            sys.exit(Supervisor(options, fds, sink).run())
        _run_here(options, fds)
    finally:
        if file is not None:
            file.remove()


def _is_stream(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)


def _run_here(options: Options, fds: tuple[int, int]) -> None:
    stdio.keep_from_children(fds)

    from .._waiting import patch

    patch()

    from .._filter.load import load
    from .._runtime import Runtime

    Runtime(load(options.target, options.args), fds).run()
    end_soon()
