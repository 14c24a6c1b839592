"""The command line. smtpd starts ``run``, so each command imports what it needs, and no more."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from .. import __version__
from ..errors import UsageError

_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="greenfilter")
def cli() -> None:
    """Run OpenSMTPD filters written in Python.

    FILTER is the path of a Python file that makes a greenfilter.Filter, or package.module:name.
    What follows it are the filter's own options.
    """


@cli.command(context_settings=_PASS_ON)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Least level of what is logged.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="One line of text, or one JSON object, per record.",
)
@click.argument("target", metavar="FILTER")
@click.argument("args", metavar="[OPTION]...", nargs=-1, type=click.UNPROCESSED)
def run(log_level: str, log_format: str, target: str, args: tuple[str, ...]) -> None:
    """Run FILTER under smtpd: in smtpd.conf, filter NAME proc-exec "greenfilter run FILTER"."""
    from ._run import run as run_filter

    run_filter(target, _own(args), log_level, log_format)


@cli.command(context_settings=_PASS_ON)
@click.argument("target", metavar="FILTER")
@click.argument("args", metavar="[OPTION]...", nargs=-1, type=click.UNPROCESSED)
def check(target: str, args: tuple[str, ...]) -> None:
    """Import FILTER, list its hooks, and print the lines that smtpd.conf needs."""
    from ._check import check as check_filter

    check_filter(target, _own(args))


def _own(args: tuple[str, ...]) -> list[str]:
    """The filter's own options; a ``--`` in front of them is not one."""
    return list(args[1:] if args[:1] == ("--",) else args)


def main() -> NoReturn:
    """Entry point of the command ``greenfilter``."""
    try:
        cli()
    except UsageError as error:
        click.echo(f"greenfilter: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
