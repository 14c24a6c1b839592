"""The command line. smtpd starts ``run``, so each command imports what it needs, and no more."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from .. import __version__
from ..errors import UsageError

_PASS_ON = {"allow_interspersed_args": False}  # what follows FILTER is not ours


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
    help="Replace a worker in which nothing has moved for so long.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0.0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a worker that is replaced may take to finish its sessions.",
)
@click.option("--pidfile", type=click.Path(), help="Write the process id here, for reload.")
@click.argument("target", metavar="FILTER")
@click.argument("args", metavar="[OPTION]...", nargs=-1, type=click.UNPROCESSED)
def run(
    supervised: bool, pidfile: str | None, max_memory: int, args: tuple[str, ...], **others: Any
) -> None:
    """Run FILTER under smtpd: in smtpd.conf, filter NAME proc-exec "greenfilter run FILTER".

    SIGHUP, or greenfilter reload, loads the filter's code anew without losing a session.
    """
    from .._supervisor import Options
    from ._run import run as run_filter

    others["hang_seconds"] = others.pop("hang_timeout")
    others["drain_seconds"] = others.pop("drain_timeout")
    options = Options(args=_own(args), max_memory=max_memory << 20, **others)
    run_filter(options, supervised, pidfile)


@cli.command()
@click.argument("pidfile", type=click.Path())
def reload(pidfile: str) -> None:
    """Have the filter that wrote PIDFILE (run --pidfile) load its code anew."""
    from ._run import reload as reload_filter

    reload_filter(pidfile)


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
