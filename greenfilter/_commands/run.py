"""``greenfilter run``."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .options import PASS_ON, filter_arguments

if TYPE_CHECKING:
    from .._supervisor import Options


@click.command(context_settings=PASS_ON)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Lowest level to log.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="One line of text, or one JSON object, per record.",
)
@click.option(
    "--supervisor/--no-supervisor",
    "supervised",
    default=True,
    help="Run the filter in worker processes that are replaced when they die (default), or in "
    "this process, which takes smtpd with it when it dies.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Worker processes that share the sessions.",
)
@click.option(
    "--max-memory",
    type=click.IntRange(0),
    default=0,
    metavar="MIB",
    help="Replace a worker that has more than this resident. 0: no limit (default).",
)
@click.option(
    "--hang-timeout",
    type=click.FloatRange(1.0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Replace a worker in which nothing has moved for this long.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0.0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a worker that is being replaced may take to finish its sessions.",
)
@click.option("--pidfile", type=click.Path(), help="Write the process id here, for reload.")
@filter_arguments
def run(
    target: str,
    args: tuple[str, ...],
    log_level: str,
    log_format: str,
    supervised: bool,
    workers: int,
    max_memory: int,
    hang_timeout: float,
    drain_timeout: float,
    pidfile: str | None,
) -> None:
    """Run FILTER under smtpd, which starts it: greenfilter check prints the lines for smtpd.conf.

    SIGHUP, or greenfilter reload, loads the filter's code again without losing a session.
    """
    from .._supervisor import Options

    options = Options(
        target,
        list(args),
        workers,
        max_memory << 20,
        hang_seconds=hang_timeout,
        drain_seconds=drain_timeout,
        log_level=log_level,
        log_format=log_format,
    )
    _run(options, supervised, pidfile)


def _run(options: Options, supervised: bool, pidfile: str | None) -> None:
    """Run a filter on fds 0 and 1 until smtpd closes them.

    Args:
        options: the filter, and how to run it.
        supervised: in worker processes, this one being their supervisor.
        pidfile: where to write the process id, for ``greenfilter reload``.

    Raises:
        UsageError: the filter cannot be loaded, or nobody is there to talk to.
    """
    from .._process import garbage, log, stderr, stdio
    from .._supervisor.worker import ignore_signals
    from .pidfile import Pidfile

    if not _is_stream(0):
        raise UsageError(
            "smtpd starts this, with the protocol on standard input; to look at a filter: "
            f"greenfilter check {options.target}"
        )
    stdio.open_all()
    ignore_signals()
    garbage.look_rarely()
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
    from .._process import stdio
    from .._supervisor.worker import end_soon
    from .._waiting import patch

    stdio.keep_from_children(fds)

    patch()
    from .._filter.load import load
    from .._runtime import Runtime

    Runtime(load(options.target, options.args), fds).run()
    end_soon()
