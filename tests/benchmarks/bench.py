"""What all cases share: the settings of a run, the rows they return, and the race by turns."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from . import peers
from .driver import FilterProcess, NotStarted, Run, WrongReplies
from .peers import MissingPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from .wire import Traffic

C_LIBRARY = "libopensmtpd"
GREENFILTER = "greenfilter"
SUPERVISED = "greenfilter supervised"


@dataclass
class Bench:
    """One run of the suite.

    Args:
        folder: for what peers are compiled to, keys and logs.
        runs: how often each contestant runs, by turns, after one run that does not count.
        quick: small sizes, to see that everything works.
        progress: called with what is being done, and the share of the case that is done (0 to 1).
    """

    folder: Path
    runs: int = 5
    quick: bool = False
    progress: Callable[[str, float], None] = lambda text, share: None

    def size(self, full: int, quick: int) -> int:
        """The size of a case."""
        return quick if self.quick else full

    def log(self, name: str) -> Path:
        """A file for fd 2 of a filter."""
        return self.folder / (name.replace(" ", "-").replace(",", "") + ".log")


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        case: what was measured.
        subject: whose figure it is.
        values: the figure of each run.
        unit: of the values.
        more_is_better: for rounding, which never flatters.
        cpu: processor time of the filter in microseconds per unit of work, median.
        ratio: this median divided by that of ``base``, turned so that more is faster.
        base: the subject that ``ratio`` is to; a C filter, if not greenfilter without something.
        target: what is to be reached, in words; empty for a peer.
        reached: whether it was; None without a target.
        note: what a reader must know besides.
    """

    case: str
    subject: str
    values: tuple[float, ...]
    unit: str
    more_is_better: bool = True
    cpu: float | None = None
    ratio: float | None = None
    base: str = C_LIBRARY
    target: str = ""
    reached: bool | None = None
    note: str = ""
    share: float | None = None
    """The value as a share of its limit, where the target is a limit."""

    @property
    def value(self) -> float:
        """The median; not a number without a run."""
        return median(self.values) if self.values else math.nan

    def plain(self) -> dict[str, Any]:
        """The row for JSON, nothing rounded."""
        return asdict(self) | {"median": self.value if self.values else None}


@dataclass(frozen=True)
class Case:
    """A named measurement: ``run`` takes the settings and returns the rows."""

    name: str
    title: str
    run: Callable[[Bench], list[Row]]


@dataclass
class Contestant:
    """A filter in a race.

    Args:
        name: in the table.
        command: how to start it.
        traffic: what to send to a filter that registered these hooks.
        at_least: the ratio to the C library that it must reach, if any.
        verify: a further check of the bytes that came back; raises WrongReplies.
    """

    name: str
    command: Callable[[], Sequence[str]]
    traffic: Callable[[frozenset[str]], Traffic]
    at_least: float | None = None
    verify: Callable[[bytes], None] | None = None
    runs: list[Run] = field(default_factory=list)
    failure: str = ""


def race(
    bench: Bench, case: str, unit: str, contestants: list[Contestant], base: str = C_LIBRARY
) -> list[Row]:
    """Run all contestants by turns; rates per second, and ratios to ``base``."""
    units: dict[str, int] = {}
    with ExitStack() as stack:
        ready = []
        for one in contestants:
            bench.progress(f"{case}: start {one.name}", 0)
            try:
                process = stack.enter_context(start(bench, one.name, one.command()))
                traffic = one.traffic(process.hooks)
            except (NotStarted, MissingPeer) as error:
                one.failure = str(error)
                continue
            units[one.name] = traffic.units
            ready.append((one, process, traffic))
        for turn in range(bench.runs + 1):
            for place, (one, process, traffic) in enumerate(ready):
                done = (turn + place / len(ready)) / (bench.runs + 1)
                bench.progress(f"{case}: {one.name}", done)
                _take_turn(one, process, traffic, counts=turn > 0)
    return _rate_rows(case, unit, contestants, units, base)


def start(bench: Bench, name: str, command: Sequence[str]) -> FilterProcess:
    """Start a filter, its log in the folder of the benchmark."""
    return FilterProcess(command, bench.log(name))


def failed(case: str, subject: str, reason: str, target: str = "") -> Row:
    """The row of a case that could not be measured."""
    reached = False if target else None
    return Row(case, subject, (), "", target=target, reached=reached, note=reason)


def limited(
    case: str,
    subject: str,
    values: Iterable[float],
    unit: str,
    limit: float,
    target: str,
    cpu: float | None = None,
    note: str = "",
) -> Row:
    """A row whose median may be ``limit`` at most."""
    row = Row(case, subject, tuple(values), unit, more_is_better=False, cpu=cpu, note=note)
    share = row.value / limit
    return replace(row, target=target, reached=share <= 1, share=share)


def greenfilters(
    name: str | Path, *arguments: str
) -> list[tuple[str, Callable[[], Sequence[str]]]]:
    """How to start a filter in one process and, if there is a supervisor, under it."""
    found: list[tuple[str, Callable[[], Sequence[str]]]] = [
        (GREENFILTER, lambda: peers.greenfilter(name, *arguments))
    ]
    if peers.has_supervisor():
        found.append((SUPERVISED, lambda: peers.supervised(name, *arguments)))
    return found


def _take_turn(one: Contestant, process: FilterProcess, traffic: Traffic, *, counts: bool) -> None:
    if one.failure:
        return
    try:
        run = process.exchange(traffic)
        if one.verify:
            one.verify(process.received)
    except (WrongReplies, OSError) as error:
        one.failure = f"{type(error).__name__}: {error}"
        return
    if counts:
        one.runs.append(run)


def _rate_rows(
    case: str, unit: str, contestants: list[Contestant], units: dict[str, int], base: str
) -> list[Row]:
    rates = {
        one.name: tuple(units[one.name] / run.seconds for run in one.runs)
        for one in contestants
        if one.runs and not one.failure
    }
    rows = []
    for one in contestants:
        target = f"at least {one.at_least:g} x {base}" if one.at_least else ""
        if one.name not in rates:
            rows.append(failed(case, one.name, one.failure, target))
            continue
        ratio = median(rates[one.name]) / median(rates[base]) if base in rates else None
        rows.append(
            Row(
                case,
                one.name,
                rates[one.name],
                unit,
                cpu=median(run.filter_cpu for run in one.runs) / units[one.name] * 1e6,
                ratio=ratio,
                base=base,
                target=target,
                reached=ratio is not None and ratio >= one.at_least if one.at_least else None,
            )
        )
    return rows
