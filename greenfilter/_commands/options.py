"""Options and arguments that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., object])

# For a command with FILTER: what follows it is the filter's, also where we have such an option.
PASS_ON = {"allow_interspersed_args": False}


def _drop_separator(
    ctx: click.Context, param: click.Parameter, args: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the filter's own options; a ``--`` in front of them is not one."""
    return args[1:] if args[:1] == ("--",) else args


def filter_arguments(function: _Function) -> _Function:
    """Add ``FILTER [OPTION]...``, the parameters ``target`` and ``args``."""
    args = click.argument(
        "args",
        metavar="[OPTION]...",
        nargs=-1,
        type=click.UNPROCESSED,
        callback=_drop_separator,
    )
    return click.argument("target", metavar="FILTER")(args(function))
