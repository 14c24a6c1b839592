"""Ten thousand open sessions, each with a callback that waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import procinfo
from ..bench import Bench, Case, Row, failed, greenfilters, limited, start
from ..driver import FilterProcess, NotStarted, WrongReplies
from ..wire import TOKENS, session_id

if TYPE_CHECKING:
    from collections.abc import Sequence

KIB_PER_SESSION = 40
ANSWER_MS = 20
NEW_CLIENTS = 200


def connect_lines(number: int, rdns: str) -> bytes:
    """What smtpd says when a client comes: ``hold...`` has to wait, ``now`` has not."""
    sid, when = session_id(number), "1795333857.855196|smtp-in"
    address = f"203.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return (
        f"report|0.7|{when}|link-connect|{sid}|{rdns}|pass|{address}:35437|192.0.2.25:25\n"
        f"filter|0.7|{when}|connect|{sid}|{TOKENS['connect']}|{rdns}|{address}\n"
    ).encode()


def proceed_line(number: int) -> bytes:
    """What the filter answers."""
    return f"filter-result|{session_id(number)}|{TOKENS['connect']}|proceed".encode()


def _ask(process: FilterProcess, number: int, rdns: str = "now") -> float:
    """Seconds until a new client is answered."""
    started = time.perf_counter()
    process.send(connect_lines(number, rdns))
    [reply] = process.receive_lines(1)
    took = time.perf_counter() - started
    if reply != proceed_line(number):
        raise WrongReplies(f"{reply!r} instead of {proceed_line(number)!r}")
    return took


def _memory(process: FilterProcess) -> int:
    return procinfo.proportional(process.pids())


def _measure(process: FilterProcess, sessions: int) -> tuple[float, list[float]]:
    """Bytes per session, and seconds until new clients are answered while all others wait."""
    new = iter(range(sessions, sessions + NEW_CLIENTS + 100))
    for _ in range(20):
        _ask(process, next(new))
    idle = _memory(process)
    process.send(b"".join(connect_lines(n, "hold.example.net") for n in range(sessions)))
    _ask(process, next(new))  # answered when all that came before has been taken in
    used = _memory(process) - idle
    took = [_ask(process, next(new)) for _ in range(NEW_CLIENTS)]
    last = next(new)
    process.send(connect_lines(last, "release"))
    replies = set(process.receive_lines(sessions + 1))
    if replies != {proceed_line(n) for n in [*range(sessions), last]}:
        raise WrongReplies("not every waiting session was answered")
    return used / sessions, took


def _run(bench: Bench) -> list[Row]:
    sessions = bench.size(10_000, 500)
    rows = []
    for name, command in greenfilters("many.py"):
        rows += _rows(bench, name, command(), sessions)
    return rows


def _rows(bench: Bench, name: str, command: Sequence[str], sessions: int) -> list[Row]:
    memory_case = f"{sessions} sessions wait: memory of each"
    answer_case = f"{sessions} sessions wait: a new client"
    memory_target = f"at most {KIB_PER_SESSION} KiB"
    answer_target = f"at most {ANSWER_MS} ms"
    memory, slowest = [], []
    for turn in range(bench.runs):
        bench.progress(f"many: {name}", turn / bench.runs)
        try:
            with start(bench, name, command) as process:
                used, took = _measure(process, sessions)
        except (NotStarted, WrongReplies) as error:
            return [
                failed(memory_case, name, str(error), memory_target),
                failed(answer_case, name, str(error), answer_target),
            ]
        memory.append(used / 1024)
        slowest.append(max(took) * 1000)
    return [
        limited(memory_case, name, memory, "KiB (PSS)", KIB_PER_SESSION, memory_target),
        limited(answer_case, name, slowest, "ms (slowest)", ANSWER_MS, answer_target),
    ]


CASE = Case("many", "10,000 sessions that wait", _run)
