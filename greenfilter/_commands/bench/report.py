"""What ``greenfilter bench`` prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import click

from ...errors import UsageError
from .figures import Figures, HandlerTime
from .load import Load
from .measure import BenchError, HangError, measure, profile

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

# Sessions of the second run, in which handlers are timed from within.
_PROFILED_SESSIONS = 500
_PROFILED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure.

    Args:
        target: the filter's file, or ``package.module:name``.
        args: its own options.
        load: how much.
        run_options: of ``greenfilter run``.
        as_json: for machines.
    """

    target: str
    args: list[str]
    load: Load
    run_options: list[str]
    as_json: bool = False


def measure_and_report(options: BenchOptions) -> None:
    """Load a filter, and print what came of it.

    Raises:
        UsageError: the filter did not start, fell silent, or wrote what nobody asked for; ends
            with exit status 1.
    """
    run = [sys.executable, "-m", "greenfilter", "run", *options.run_options]
    command = [*run, options.target, *options.args]
    short = replace(
        options.load,
        sessions=min(options.load.sessions or _PROFILED_SESSIONS, _PROFILED_SESSIONS),
        seconds=min(options.load.seconds or _PROFILED_SECONDS, _PROFILED_SECONDS),
    )
    try:
        with _progress(options.load, "loading") as tell:
            figures = measure(command, options.load, tell)
    except HangError as error:
        raise UsageError(_hang(options, short, error), exit_code=1) from error
    except (BenchError, OSError) as error:
        raise UsageError(str(error), exit_code=1) from error
    times = _handler_times(options, short)
    if options.as_json:
        handlers = [asdict(entry) for entry in times]
        click.echo(json.dumps({**figures.as_json(), "handlers": handlers}, indent=2))
    else:
        _show(options, figures, times)


def _handler_times(options: BenchOptions, load: Load) -> list[HandlerTime]:
    """Time the handlers. In that run no supervisor replaces a filter that ends."""
    try:
        with _progress(load, "timing handlers") as tell:
            return profile(options.target, options.args, load, tell)
    except (BenchError, OSError) as error:
        click.echo(f"handlers were not timed: {error}", err=True)
        return []


def _hang(options: BenchOptions, load: Load, error: HangError) -> str:
    """Describe a hang further: the line that it is at, if it happens again."""
    try:
        profile(options.target, options.args, load, lambda figures: None)
    except (BenchError, OSError) as again:
        return f"{error}\nonce more, and watched: {again}"
    return str(error)


@contextmanager
def _progress(load: Load, label: str) -> Iterator[Callable[[Figures], None]]:
    """Show a bar on a terminal, else one line; for as many sessions as there may be."""
    by_time = load.sessions is None
    length = round((load.seconds or 0) * 10) if by_time else load.sessions
    done = ticks = 0
    bar: ProgressBar[int]
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:

        def tell(figures: Figures) -> None:
            nonlocal done, ticks
            ticks += 1
            now = ticks if by_time else figures.sessions
            bar.update(now - done)
            done = now

        yield tell


def _show(options: BenchOptions, figures: Figures, times: list[HandlerTime]) -> None:
    load = options.load
    click.echo(
        f"{options.target}: {figures.sessions:,} sessions, {load.concurrency} at once, each with "
        f"{load.messages} of {load.size:,} bytes; {figures.seconds:.2f} s"
    )
    for what, count in (
        ("sessions", figures.sessions),
        ("messages", figures.messages),
        ("lines", figures.lines),
    ):
        click.echo(f"  {what:<10}{figures.per_second(count):>12,.0f} /s")
    click.echo(f"  {'start':<10}{_time(figures.start_seconds):>12}")
    click.echo(f"  {'processor':<10}{_processor(figures)}")
    given = ", ".join(f"{count:,} {kind}" for kind, count in figures.decisions.most_common())
    click.echo(f"  {'decisions':<10}{given or 'none'}")
    _show_phases(figures)
    _show_handlers(times)
    if figures.log:
        click.echo("\nthe end of the filter's log:")
        for line in figures.log:
            click.echo(f"  {line}")


def _processor(figures: Figures) -> str:
    own = f"{figures.driver_cpu / figures.seconds:.2f} of one for this command"
    if figures.filter_cpu is None:
        return own
    return f"{figures.filter_cpu / figures.seconds:.2f} of one for the filter, {own}"


def _show_phases(figures: Figures) -> None:
    if figures.latencies:
        click.echo(
            f"\n{'phase':<12}{'requests':>10}{'50 %':>12}{'90 %':>12}{'99 %':>12}{'max':>12}"
        )
    for phase, latencies in figures.latencies.items():
        shown = "".join(f"{_time(value):>12}" for value in latencies.summary().values())
        click.echo(f"{phase:<12}{len(latencies):>10,}{shown}")


def _show_handlers(times: list[HandlerTime]) -> None:
    """Print the means per call.

    Of what a handler took, what the processor worked and what it waited; beside it, what its
    requests waited until it began, and for their answers to come.
    """
    if not times:
        return
    cpu = sum(entry.cpu_seconds for entry in times) or 1.0
    width = max(len(f"{entry.hook} {entry.name}") for entry in times) + 2
    click.echo(
        f"\n{'handler':<{width}}{'calls':>10}{'a call':>12}{'computes':>12}{'waits':>12}  share"
        f"{'queued':>12}"
    )
    for entry in sorted(times, key=lambda entry: -entry.cpu_seconds):
        calls = entry.calls or 1
        waits = max(0.0, entry.seconds - entry.cpu_seconds)
        means = (entry.seconds / calls, entry.cpu_seconds / calls, waits / calls)
        shown = "".join(f"{_time(mean):>12}" for mean in means)
        name = f"{entry.hook} {entry.name}"
        queued = "" if entry.queued_seconds is None else _time(entry.queued_seconds / calls)
        share = f"{entry.cpu_seconds / cpu:>7.0%}"
        click.echo(f"{name:<{width}}{entry.calls:>10,}{shown}{share}{queued:>12}".rstrip())
    click.echo("queued: from question to answer, less the call itself; other sessions came first")


def _time(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
