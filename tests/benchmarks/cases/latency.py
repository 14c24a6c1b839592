"""Time from a request to its reply, at 1,000 requests per second."""

from __future__ import annotations

import select
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median, quantiles

from .. import peers
from ..bench import C_LIBRARY, Bench, Case, Row, failed, greenfilters, limited, start
from ..driver import FilterProcess, NotStarted, WrongReplies, check
from ..wire import Sessions
from .recorded import RECORDED

RATE = 1000
ABOVE_MS = 2.0
HOOKS = frozenset({"link-connect", "connect", "link-disconnect"})


@dataclass
class _Subject:
    name: str
    process: FilterProcess | None = None
    middle: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    failure: str = ""

    def run(self, requests: int, *, counts: bool) -> None:
        if self.failure or self.process is None:
            return
        try:
            took = _one_run(self.process, requests)
        except WrongReplies as error:
            self.failure = str(error)
            return
        if counts:
            cuts = quantiles(took, n=100)
            self.middle.append(cuts[49] * 1000)
            self.p99.append(cuts[98] * 1000)


def _one_run(process: FilterProcess, requests: int) -> list[float]:
    """Milliseconds are not enough here: seconds each request took, at even distances."""
    kind = Sessions(process.hooks & HOOKS)
    sessions = [kind.steps(number) for number in range(requests)]
    questions = [b"".join(line for line, _ in steps[0]) for steps in sessions]
    sent: list[float] = []
    took: list[float] = []
    received = b""
    begin = time.perf_counter()
    while len(took) < requests:
        now, due = time.perf_counter(), begin + len(sent) / RATE
        if len(sent) < requests and now >= due:
            sent.append(now)
            process.send(questions[len(sent) - 1])
            continue
        wait = due - now if len(sent) < requests else 10.0
        if select.select([process.socket], [], [], wait)[0]:
            chunk, arrived = process.socket.recv(65536), time.perf_counter()
            if not chunk:
                raise WrongReplies(f"the filter ended: {process.tail()}")
            received += chunk
            # These filters answer at once, so replies come in the order of the requests.
            took += [arrived - sent[len(took) + n] for n in range(chunk.count(b"\n"))]
        elif len(sent) == requests:
            raise WrongReplies(f"{len(took)} of {requests} replies, then silence")
    process.send(b"".join(line for steps in sessions for line, _ in steps[1]))
    check(received, b"".join(reply for steps in sessions for _, reply in steps[0]))
    return took


def _run(bench: Bench) -> list[Row]:
    requests = bench.size(3000, 300)
    commands = [
        *greenfilters("sessions.py"),
        (RECORDED, lambda: peers.recorded(bench.folder / "recorded-latency", "sessions.py")),
        (C_LIBRARY, lambda: peers.compiled("sessions", bench.folder)),
    ]
    subjects = []
    with ExitStack() as stack:
        for name, command in commands:
            subjects.append(subject := _Subject(name))
            try:
                subject.process = stack.enter_context(start(bench, name, command()))
            except (NotStarted, peers.MissingPeer) as error:
                subject.failure = str(error)
        for turn in range(bench.runs + 1):
            for subject in subjects:
                bench.progress(f"latency: {subject.name}", turn / (bench.runs + 1))
                subject.run(requests, counts=turn > 0)
    return [row for percent in (50, 99) for row in _rows(percent, subjects)]


def _rows(percent: int, subjects: list[_Subject]) -> list[Row]:
    case = f"latency at {RATE}/s, {percent}th percentile"
    target = f"at most {ABOVE_MS:g} ms above {C_LIBRARY}"
    peer = subjects[-1]
    rows = []
    for subject in subjects:
        counts = percent == 99 and subject is not peer
        values = subject.p99 if percent == 99 else subject.middle
        if subject.failure:
            rows.append(failed(case, subject.name, subject.failure, target if counts else ""))
        elif counts and not peer.failure:
            limit = ABOVE_MS + median(peer.p99)
            rows.append(limited(case, subject.name, values, "ms", limit, target))
        else:
            rows.append(Row(case, subject.name, tuple(values), "ms", more_is_better=False))
    return rows


CASE = Case("latency", "Request to reply at 1,000 requests per second", _run)
