"""The command line. Each command is a module of its own, imported when it is wanted.

smtpd starts ``greenfilter run``, which must not wait for what other commands need. A command's
module imports click at its top, and what does the work inside the function.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import click

from .. import __version__
from ..errors import UsageError

# The module of each command, which has a click command of the command's name.
_MODULES = {
    "bench": "bench.command",
    "check": "check.command",
    "filters": "filters",
    "new": "new",
    "record": "record.command",
    "reload": "reload",
    "replay": "record.replay",
    "run": "run",
    "serve": "serve.command",
}


class _LazyGroup(click.Group):
    """A group that imports a command when it is run, or listed by ``--help``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        module = import_module(f".{_MODULES[cmd_name]}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from ..protocol import _connection

        how = "plain Python" if _connection.__file__.endswith(".py") else "compiled"
        click.echo(f"greenfilter {__version__} ({how})")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version, and whether the modules that matter for speed are compiled.",
)
def cli() -> None:
    """Run OpenSMTPD filters written in Python.

    FILTER is the name of a stock filter (greenfilter filters lists them), the path of a Python file
    that makes a greenfilter.Filter, with a slash in it or .py at its end, or package.module:name.
    What follows it are the filter's own options: greenfilter run NAME --help shows those of a stock
    filter.
    """


def main() -> NoReturn:
    """Run the command ``greenfilter``."""
    try:
        cli()
    except UsageError as error:
        click.echo(f"greenfilter: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
