"""One message of 100 MB: how much memory it takes, and how fast it passes.

By a filter that has it whole, by one that gets it line by line, and by a chain of three filters of
three kinds, which has it pass through all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import peers, procinfo
from ..bench import Bench, Case, Row, failed, greenfilters, limited, start
from ..driver import FilterProcess, NotStarted, WrongReplies
from ..wire import Sessions, Traffic, build, message_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LINE = 70
PEAK_MIB = 64
HEADER = b"X-Checked: yes"
# What it passes through, the filter, and how many headers that adds.
FILTERS = (
    ("app.message", "message.py", 1),
    ("app.lines", "generator.py", 1),
    ("a chain of three", "chain-big.toml", 2),
)
MIB = 1024 * 1024


def _traffic(hooks: frozenset[str], megabytes: int, added: int) -> Traffic:
    lines = message_lines(megabytes * 1_000_000 // (LINE + 2))
    kind = Sessions(hooks, lines, lambda lines: [*[HEADER] * added, *lines])
    return build(kind, 1, units=megabytes, lanes=1, at_once=1)


def small_messages(hooks: frozenset[str], added: int) -> Traffic:
    """Ten messages of 20 lines, to which so many headers are added: what any message needs."""
    kind = Sessions(hooks, message_lines(20), lambda lines: [*[HEADER] * added, *lines])
    return build(kind, 10, units=10, at_once=1)


def _measure(process: FilterProcess, traffic: Traffic, added: int) -> tuple[float, float]:
    """MiB at the peak above idle, and seconds."""
    process.exchange(small_messages(process.hooks, added))
    pids = process.pids()
    procinfo.reset_peak(pids)
    idle = procinfo.resident(pids)
    run = process.exchange(traffic)
    return (procinfo.peak(pids) - idle) / MIB, run.seconds


def _run(bench: Bench) -> list[Row]:
    megabytes = bench.size(100, 5)
    rows = []
    for what, name, added in FILTERS:
        for subject, command in greenfilters(name):
            case = f"{megabytes} MB through {what}"
            rows += _rows(bench, case, subject, command, megabytes, added)
    return rows


def _rows(
    bench: Bench,
    case: str,
    subject: str,
    command: Callable[[], Sequence[str]],
    megabytes: int,
    added: int,
) -> list[Row]:
    target = f"at most {PEAK_MIB} MiB above idle"
    peaks, rates = [], []
    traffic = None
    for turn in range(min(bench.runs, 3)):
        bench.progress(f"big: {case}, {subject}", turn / min(bench.runs, 3))
        try:
            with start(bench, subject, command()) as process:
                traffic = traffic or _traffic(process.hooks, megabytes, added)
                peak, seconds = _measure(process, traffic, added)
        except (NotStarted, WrongReplies, peers.MissingPeer) as error:
            return [failed(f"{case}: peak", subject, str(error), target)]
        peaks.append(peak)
        rates.append(megabytes / seconds)
    return [
        limited(f"{case}: peak", subject, peaks, "MiB", PEAK_MIB, target),
        Row(f"{case}: speed", subject, tuple(rates), "MB/s"),
    ]


CASE = Case("big", "A message of 100 MB", _run)
