"""One message of 100 MB: how much memory it takes, and how fast it passes."""

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
MIB = 1024 * 1024


def _traffic(hooks: frozenset[str], megabytes: int) -> Traffic:
    lines = message_lines(megabytes * 1_000_000 // (LINE + 2))
    kind = Sessions(hooks, lines, lambda lines: [b"X-Checked: yes", *lines])
    return build(kind, 1, units=megabytes, lanes=1, at_once=1)


def _small(hooks: frozenset[str]) -> Traffic:
    kind = Sessions(hooks, message_lines(20), lambda lines: [b"X-Checked: yes", *lines])
    return build(kind, 10, units=10, at_once=1)


def _measure(process: FilterProcess, traffic: Traffic) -> tuple[float, float]:
    """MiB at the peak above idle, and seconds."""
    process.exchange(_small(process.hooks))  # what every message needs is not this one's cost
    pids = process.pids()
    procinfo.reset_peak(pids)
    idle = procinfo.resident(pids)
    run = process.exchange(traffic)
    return (procinfo.peak(pids) - idle) / MIB, run.seconds


def _run(bench: Bench) -> list[Row]:
    megabytes = bench.size(100, 5)
    rows = []
    for api, name in (("app.message", "message.py"), ("app.lines", "generator.py")):
        for subject, command in greenfilters(name):
            case = f"{megabytes} MB through {api}"
            rows += _rows(bench, case, subject, command, megabytes)
    return rows


def _rows(
    bench: Bench, case: str, subject: str, command: Callable[[], Sequence[str]], megabytes: int
) -> list[Row]:
    target = f"at most {PEAK_MIB} MiB above idle"
    peaks, rates = [], []
    traffic = None
    for turn in range(min(bench.runs, 3)):
        bench.progress(f"big: {case}, {subject}", turn / min(bench.runs, 3))
        try:
            with start(bench, subject, command()) as process:
                traffic = traffic or _traffic(process.hooks, megabytes)
                peak, seconds = _measure(process, traffic)
        except (NotStarted, WrongReplies, peers.MissingPeer) as error:
            return [failed(f"{case}: peak", subject, str(error), target)]
        peaks.append(peak)
        rates.append(megabytes / seconds)
    return [
        limited(f"{case}: peak", subject, peaks, "MiB", PEAK_MIB, target),
        Row(f"{case}: speed", subject, tuple(rates), "MB/s"),
    ]


CASE = Case("big", "A message of 100 MB", _run)
