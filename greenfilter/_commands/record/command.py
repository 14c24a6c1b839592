"""``greenfilter record``."""

from __future__ import annotations

import sys

import click

from ...errors import UsageError
from ..options import PASS_ON


@click.command(context_settings=PASS_ON)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    required=True,
    metavar="FILE",
    help="File to record to; what is already in it is kept.",
)
@click.option(
    "--max-size",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="MIB",
    help="Begin a new file at this size: FILE becomes FILE.1, FILE.1 becomes FILE.2.",
)
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=9,
    show_default=True,
    metavar="N",
    help="How many older files to keep.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def record(output: str, max_size: int, keep: int, command: tuple[str, ...]) -> None:
    """Record what smtpd and a filter say, without passwords, for replay.

    In smtpd.conf, in front of the command of any filter:
    filter NAME proc-exec "greenfilter record -o FILE -- COMMAND..."

    Each filter needs a FILE of its own. It is written by the user that the filter runs as (_smtpd
    if smtpd.conf names none), in a directory that this user may write to. Mail goes on whatever
    happens to the recording.
    """
    from ..._process import log
    from . import pump
    from .writer import Writer

    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("smtpd starts this, with the protocol on standard input")
    log.set_up()
    pump.record(command, Writer(output, max_size << 20, keep))
