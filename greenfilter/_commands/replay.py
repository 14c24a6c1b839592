"""``greenfilter replay``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from .._record.format import Entry, read
from .._record.player import Player
from .._record.result import readable
from ..errors import UsageError
from ..testing._target import Process
from .command import command_words

# Below this, it is over before a bar could be read.
_LONG_BYTES = 1 << 20


def replay(
    target: str,
    logs: Sequence[str],
    speed: str,
    filter_options: Sequence[str],
    is_command: bool,
    timeout: float,
    timeline: str | None,
    observe: bool,
) -> None:
    """Play recordings into a filter, and print what it decides otherwise.

    Args:
        target: the filter, as for ``run``, or a command line.
        logs: files of recordings.
        speed: ``max`` or ``original``.
        filter_options: for the filter.
        is_command: ``target`` is a command line.
        timeout: seconds to wait for each answer.
        timeline: where to write the page that shows it.
        observe: tell what the filter would have done, with sessions played as they were.

    Raises:
        UsageError: a recording cannot be read or is empty, the command line is none, or the filter
            does not start.
        SystemExit: with status 1, the filter decided otherwise, or wrote what smtpd does not
            forgive.
    """
    command = command_words(target) if is_command else _run_command(target)
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
        from .._record.timeline import page

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
    size = sum(os.path.getsize(log) for log in logs if os.path.isfile(log))
    hidden = size < _LONG_BYTES or not sys.stderr.isatty()
    bar: Any
    with click.progressbar(length=size, file=sys.stderr, hidden=hidden, show_pos=False) as bar:
        for entry in read(logs):
            yield entry
            bar.update(entry.size)
