"""``greenfilter check``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import click

from ...errors import UsageError
from ..options import PASS_ON, filter_arguments

if TYPE_CHECKING:
    from .report import CheckOptions


@click.command(context_settings=PASS_ON)
@click.option(
    "--smtpd-conf",
    type=click.Path(),
    metavar="FILE",
    help="Check that this smtpd.conf names the filter where its hooks need it.",
)
@click.option(
    "--user",
    metavar="NAME",
    help="Check that this user can read all files. With --smtpd-conf the default is who "
    "proc-exec names there, or else smtpd's own user.",
)
@click.option("--strict", is_flag=True, help="Warnings are errors.")
@click.option(
    "--run",
    is_flag=True,
    help="Play some sessions to the filter, in a process of its own, and report which handlers "
    "kept its loop busy for 100 ms or more, and in which line. The filter really works: it asks "
    "its servers and databases, and writes its files, about made-up clients of example.net.",
)
@filter_arguments
def check(
    target: str,
    args: tuple[str, ...],
    smtpd_conf: str | None,
    user: str | None,
    strict: bool,
    run: bool,
) -> None:
    """Find what is wrong with FILTER before it starts.

    Import it, list its hooks, print the lines that smtpd.conf needs, and look for mistakes. Each
    mistake is a line on standard error, FILE:LINE: TEXT; the exit status is 1 if there is one,
    not counting warnings.
    """
    from .report import CheckOptions

    _check_and_end(CheckOptions(target, list(args), smtpd_conf, user, strict, run))


def _check_and_end(options: CheckOptions) -> NoReturn:
    """Check a filter, and end the process, whatever threads the filter has started."""
    from . import report

    try:
        status = report.check(options)
    except UsageError as error:
        click.echo(f"greenfilter: {error}", err=True)
        status = error.exit_code
    except BrokenPipeError:
        status = 1  # nobody reads on
    with suppress(OSError):
        sys.stdout.flush()
    _end_processes()
    os._exit(status)


def _end_processes() -> None:
    """End what a filter has started at import; it would keep this process alive for ever."""
    multiprocessing = sys.modules.get("multiprocessing")
    for process in multiprocessing.active_children() if multiprocessing else []:
        process.kill()
