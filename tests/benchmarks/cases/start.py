"""Time from starting the program to ``register|ready``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import peers
from ..bench import C_LIBRARY, Bench, Case, Row, failed, greenfilters, limited, start
from ..driver import NotStarted

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT_MS = 500
CASE_NAME = "start to register|ready"


def _run(bench: Bench) -> list[Row]:
    target = f"at most {LIMIT_MS} ms"
    commands = [
        *greenfilters("sessions.py"),
        (C_LIBRARY, lambda: peers.compiled("sessions", bench.folder)),
        ("plain Python loop", lambda: peers.naive("sessions")),
    ]
    rows = []
    for place, (name, command) in enumerate(commands):
        bench.progress(f"start: {name}", place / len(commands))
        target_of = target if name.startswith("greenfilter") else ""
        try:
            times = [_milliseconds(bench, name, command()) for _ in range(bench.runs + 1)][1:]
        except (NotStarted, peers.MissingPeer) as error:
            rows.append(failed(CASE_NAME, name, str(error), target_of))
            continue
        if target_of:
            rows.append(limited(CASE_NAME, name, times, "ms", LIMIT_MS, target))
        else:
            rows.append(Row(CASE_NAME, name, tuple(times), "ms", more_is_better=False))
    return rows


def _milliseconds(bench: Bench, name: str, command: Sequence[str]) -> float:
    with start(bench, name, command) as process:
        return process.start_seconds * 1000


CASE = Case("start", "Start of the filter", _run)
