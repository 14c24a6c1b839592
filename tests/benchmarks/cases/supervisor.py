"""Memory of the supervisor and its worker, and how soon there is an answer when that dies."""

from __future__ import annotations

import os
import signal
import time
from itertools import count

from .. import procinfo
from ..bench import SUPERVISED, Bench, Case, Row, failed, greenfilters, start
from ..driver import FilterProcess, NotStarted, WrongReplies
from .many import connect_lines, proceed_line

PATIENCE = 10.0
MIB = 1024 * 1024

Figures = dict[tuple[str, str], float]
"""By what was measured, and its unit."""


def _run(bench: Bench) -> list[Row]:
    sessions = bench.size(5000, 200)
    found: list[Figures] = []
    for name, command in greenfilters("many.py"):
        if name != SUPERVISED:
            continue
        for turn in range(bench.runs):
            bench.progress("supervisor", turn / bench.runs)
            try:
                with start(bench, "supervisor", command()) as process:
                    found.append(_measure(process, sessions))
            except (NotStarted, WrongReplies) as error:
                return [failed("supervisor", SUPERVISED, str(error))]
    return [
        Row(case, SUPERVISED, tuple(each[case, unit] for each in found), unit, False)
        for case, unit in (found[0] if found else ())
    ]


def _measure(process: FilterProcess, sessions: int) -> Figures:
    pids = dict(zip(("supervisor", "worker"), process.pids(), strict=True))
    numbers = count()
    figures: Figures = {}

    def is_answered_by_worker() -> bool:
        number = next(numbers)
        process.send(connect_lines(number, "now"))
        return process.receive_lines(1) == [proceed_line(number)]

    for when, clients in (("idle", 1), (f"{sessions} sessions open", sessions)):
        if not all(is_answered_by_worker() for _ in range(clients)):
            raise WrongReplies("the worker did not answer a client")
        for who, pid in pids.items():
            figures[f"{who}, {when}", "MiB (PSS)"] = procinfo.proportional([pid]) / MIB
    owed = next(numbers)
    process.send(connect_lines(owed, "hold"))
    is_answered_by_worker()  # so it has the one before too
    os.kill(pids["worker"], signal.SIGKILL)
    died = time.perf_counter()
    if process.receive_lines(1) == [proceed_line(owed)]:
        raise WrongReplies("a worker that was killed has answered")
    figures["death of a worker to what it owed", "ms"] = (time.perf_counter() - died) * 1000
    while not is_answered_by_worker():
        if time.perf_counter() > died + PATIENCE:
            raise WrongReplies("no other worker came")
        time.sleep(0.001)  # it needs the processor
    figures["death of a worker to an answer of the next", "ms"] = (time.perf_counter() - died) * 1e3
    return figures


CASE = Case("supervisor", "Memory of both processes, and the death of a worker", _run)
