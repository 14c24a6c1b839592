"""Does ten or a hundred times the work cost ten or a hundred times the time?"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from ..bench import Bench, Case, Row, failed, greenfilters, limited, start
from ..driver import FilterProcess, NotStarted, WrongReplies
from ..wire import Sessions, Traffic, build, fourteen, message_lines

FACTORS = (1, 10, 100)
AT_MOST = 1.3

Sized = Callable[[frozenset[str], int], Traffic]


def _sessions_in_all(hooks: frozenset[str], size: int) -> Traffic:
    return build(Sessions(fourteen(hooks)), size, units=size, at_once=200)


def _sessions_at_once(hooks: frozenset[str], size: int) -> Traffic:
    return build(Sessions(fourteen(hooks)), size, units=size, at_once=size)


def _lines_in_all(hooks: frozenset[str], size: int) -> Traffic:
    return build(Sessions(hooks, message_lines(500)), size // 500, units=size, at_once=8)


def _lines_of_one_message(hooks: frozenset[str], size: int) -> Traffic:
    return build(Sessions(hooks, message_lines(size)), 1, units=size, lanes=1, at_once=1)


def _times(bench: Bench, process: FilterProcess, sized: Sized, smallest: int) -> list[list[float]]:
    """Microseconds per unit: for each factor, those of all runs."""
    traffics = [sized(process.hooks, smallest * factor) for factor in FACTORS]
    times: list[list[float]] = [[] for _ in FACTORS]
    for turn in range(bench.runs + 1):
        bench.progress("growth", turn / (bench.runs + 1))
        for traffic, factor, found in zip(traffics, FACTORS, times, strict=True):
            # The smallest is over in milliseconds: so many of them that chance evens out.
            repeats = FACTORS[-1] // factor if factor < FACTORS[-1] else 1
            runs = [process.exchange(traffic).seconds for _ in range(min(repeats, 20))]
            if turn:
                found.append(median(runs) / traffic.units * 1e6)
    return times


def _run(bench: Bench) -> list[Row]:
    lines, sessions = bench.size(5000, 500), bench.size(200, 20)
    plan = (
        ("sessions in all", "sessions.py", _sessions_in_all, sessions),
        ("sessions at once", "sessions.py", _sessions_at_once, sessions),
        ("lines in all", "lines.py", _lines_in_all, lines),
        ("lines of one message", "lines.py", _lines_of_one_message, lines),
    )
    rows = []
    for what, name, sized, smallest in plan:
        subject, command = greenfilters(name)[0]
        case = f"cost as work grows, {what}"
        target = f"at most {AT_MOST} x the smallest"
        try:
            with start(bench, subject, command()) as process:
                times = _times(bench, process, sized, smallest)
        except (NotStarted, WrongReplies) as error:
            rows.append(failed(case, subject, str(error), target))
            continue
        worst = max(times[1:], key=median)
        ratios = [time / median(times[0]) for time in worst]
        sizes = ", ".join(
            f"{smallest * factor}: {median(found):.3f}"
            for factor, found in zip(FACTORS, times, strict=True)
        )
        note = f"microseconds each at {sizes}"
        rows.append(limited(case, subject, ratios, "x", AT_MOST, target, note=note))
    return rows


CASE = Case("growth", "Work x1, x10, x100", _run)
