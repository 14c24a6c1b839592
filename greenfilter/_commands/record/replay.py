"""``greenfilter replay``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError

if TYPE_CHECKING:
    from .format import Entry

# Below this, it is over before a bar could be read.
_LONG_BYTES = 1 << 20


@click.command()
@click.option(
    "--speed",
    type=click.Choice(["max", "original"]),
    default="max",
    show_default=True,
    help="As fast as the filter answers, or with the pauses of the recording.",
)
@click.option(
    "--filter-option",
    "filter_options",
    multiple=True,
    metavar="OPTION",
    help="An option of the filter's own; may be repeated: --filter-option=--strict",
)
@click.option(
    "--command", "is_command", is_flag=True, help="FILTER is a command line, of any filter."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the filter may take to answer.",
)
@click.option(
    "--timeline",
    type=click.Path(dir_okay=False),
    metavar="HTML",
    help="Write a page that shows every session and how long each answer took.",
)
@click.option(
    "--observe",
    is_flag=True,
    help="Show what FILTER would have done: one line per difference, and no session ends by it.",
)
@click.argument("target", metavar="FILTER")
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=click.Path())
def replay(
    target: str,
    logs: tuple[str, ...],
    speed: str,
    filter_options: tuple[str, ...],
    is_command: bool,
    timeout: float,
    timeline: str | None,
    observe: bool,
) -> None:
    """Play recordings into FILTER and show where it decides differently from the recorded one.

    The exit status is 0 if all decisions are the same, or with --observe; 1 if not; 2 if a
    recording cannot be read or the filter does not start.
    """
    from ..._process.words import split_command
    from ..._smtpd.target import Process
    from .player import Player
    from .result import readable

    command = split_command(target) if is_command else _run_command(target)
    command += filter_options
    player = Player(
        lambda: Process(command), timeout, speed == "original", timeline is not None, observe
    )
    result = player.play(_with_bar(logs))
    if not result.sessions + result.left_out:
        raise UsageError(f"{', '.join(logs)}: no sessions in it; nothing was played")
    for line in result.observed() if observe else result.report():
        click.echo(line)
    click.echo(result.summary())
    if timeline is not None:
        from .timeline import page

        try:
            Path(timeline).write_text(page(result, target), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--timeline {timeline}: {error.strerror}") from error
    if result.trouble or (result.differences and not observe):
        for line in result.log:
            click.echo(f"the filter's log: {readable(line.encode())}", err=True)
        sys.exit(1)


def _run_command(target: str) -> list[str]:
    return [sys.executable, "-m", "greenfilter", "run", "--log-level", "warning", target]


def _with_bar(logs: Sequence[str]) -> Iterator[Entry]:
    """Read the logs; a long way is shown on a terminal."""
    from .format import read

    size = sum(os.path.getsize(log) for log in logs if os.path.isfile(log))
    hidden = size < _LONG_BYTES or not sys.stderr.isatty()
    bar: Any
    with click.progressbar(length=size, file=sys.stderr, hidden=hidden, show_pos=False) as bar:
        for entry in read(logs):
            yield entry
            bar.update(entry.size)
