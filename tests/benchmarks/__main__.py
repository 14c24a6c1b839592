"""Command line of the benchmark suite."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from . import peers
from .bench import Bench, Case, Row
from .cases import CASES
from .chart import QUICK, svg
from .report import environment, table, write_json

RESULTS = Path(".bench")
STEPS = 100
"""Of the progress bar, per case."""


@click.command()
@click.option("--case", "names", multiple=True, help="Only this case; may be given more than once.")
@click.option("--runs", default=5, show_default=True, help="Runs per contestant that count.")
@click.option("--quick", is_flag=True, help="Small sizes: to see that it works, not to quote.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    default=RESULTS / "results.json",
    show_default=True,
    help="Where all figures go.",
)
@click.option(
    "--chart",
    "chart_file",
    type=click.Path(path_type=Path),
    default=RESULTS / "chart.svg",
    show_default=True,
    help="Where the SVG goes.",
)
@click.option("--list", "only_list", is_flag=True, help="Name the cases and end.")
def main(
    names: tuple[str, ...],
    runs: int,
    quick: bool,
    json_file: Path,
    chart_file: Path,
    only_list: bool,
) -> None:
    """Measure filters side by side; exit 1 if a target is not reached."""
    if only_list:
        for case in CASES:
            click.echo(f"{case.name:14}{case.title}")
        return
    unknown = set(names) - {case.name for case in CASES}
    if unknown:
        raise click.BadParameter(f"no case {', '.join(sorted(unknown))}; see --list")
    chosen = [case for case in CASES if not names or case.name in names]
    rows = _measure(chosen, runs, quick)
    click.echo("\n".join(f"{name}: {fact}" for name, fact in environment().items()))
    click.echo(f"runs that count: {runs}\n")
    if quick:
        click.echo(f"{QUICK}\n")
    click.echo(table(rows))
    for note in _left_out():
        click.echo(f"- {note}")
    for file in (json_file, chart_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_json(json_file, rows, {"runs": runs, "quick": quick, "left_out": _left_out()})
    chart_file.write_text(svg(rows, quick=quick))
    click.echo(f"\nall figures: {json_file}, chart: {chart_file}")
    raise SystemExit(any(row.reached is False for row in rows))


def _measure(chosen: list[Case], runs: int, quick: bool) -> list[Row]:
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="greenfilter-bench-") as folder,
        click.progressbar(
            length=STEPS * len(chosen),
            label="measuring",
            item_show_func=lambda text: text and str(text),
            file=sys.stderr,
        ) as bar,
    ):
        for place, case in enumerate(chosen):

            def progress(text: str, share: float, start: int = STEPS * place) -> None:
                bar.update(max(0, start + int(STEPS * share) - bar.pos), text)

            rows += case.run(Bench(Path(folder), runs, quick, progress))
        bar.update(STEPS * len(chosen) - bar.pos)
    return rows


def _left_out() -> list[str]:
    """What could not be measured because this greenfilter does not have it."""
    notes = []
    if not peers.has_supervisor():
        notes.append("left out: every row under the supervisor, which is not there")
    if not peers.has_workers():
        notes.append("left out: signing with 1 and 2 workers, there is no --workers")
    return notes


main()
