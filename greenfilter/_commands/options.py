"""Options and arguments that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., object])

# For a command with FILTER: what follows it is the filter's, also where we have such an option.
PASS_ON = {"allow_interspersed_args": False}


def _own_options(
    ctx: click.Context, param: click.Parameter, args: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the filter's own options; a ``--`` in front of them is not one.

    A stock filter's manual is shown here, and what a chain is made of: nobody needs a mail server
    to read it.
    """
    own = args[1:] if args[:1] == ("--",) else args
    if {"-h", "--help"}.intersection(own):
        from .._filter import stock

        target: str = ctx.params["target"]
        if stock.is_name(target):
            stock.build(target, ["--help"])
        if target.endswith(".toml"):
            from .chain_help import chain_help

            click.echo(chain_help(target, ctx.command_path))
            ctx.exit()
    return own


def filter_arguments(function: _Function) -> _Function:
    """Add ``FILTER [OPTION]...``, the parameters ``target`` and ``args``."""
    args = click.argument(
        "args",
        metavar="[OPTION]...",
        nargs=-1,
        type=click.UNPROCESSED,
        callback=_own_options,
    )
    return click.argument("target", metavar="FILTER")(args(function))
