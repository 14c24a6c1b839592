"""``greenfilter bench``."""

from __future__ import annotations

import click

from ..options import PASS_ON, filter_arguments


@click.command(context_settings=PASS_ON)
@click.option(
    "--sessions",
    type=click.IntRange(1),
    metavar="N",
    help="Number of sessions: 2000, or with --seconds as many as there is time for.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Start no session after this time.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    metavar="N",
    help="Sessions at once.",
)
@click.option(
    "--messages",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="Messages in each session.",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    metavar="BYTES",
    help="Size of each message.",
)
@click.option(
    "--supervisor/--no-supervisor",
    "supervised",
    default=True,
    help="As for run.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, metavar="N", help="As for run.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the figures as JSON; times are in seconds."
)
@filter_arguments
def bench(
    target: str,
    args: tuple[str, ...],
    sessions: int | None,
    seconds: float | None,
    concurrency: int,
    messages: int,
    size: int,
    supervised: bool,
    workers: int,
    as_json: bool,
) -> None:
    """Measure how fast FILTER is under load, and where the time goes.

    The filter runs as under smtpd, in its own process. A second, short run times its handlers
    from within. No mail is sent, but the filter really works: it asks its DNS servers and
    databases about made-up clients of example.net.
    """
    from .load import DEFAULT_SESSIONS, Load
    from .report import BenchOptions, measure_and_report

    if sessions is None and seconds is None:
        sessions = DEFAULT_SESSIONS
    load = Load(sessions, concurrency, messages, size, seconds)
    run_options = [] if supervised else ["--no-supervisor"]
    run_options += ["--workers", str(workers)]
    measure_and_report(BenchOptions(target, list(args), load, run_options, as_json))
