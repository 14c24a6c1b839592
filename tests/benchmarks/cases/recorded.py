"""What ``greenfilter record`` in front of a filter costs: rates at full load."""

from __future__ import annotations

from functools import partial

from .. import peers
from ..bench import SUPERVISED, Bench, Case, Contestant, Row, race
from .throughput import line_traffic, session_traffic

RECORDED = "greenfilter recorded"


def _run(bench: Bench) -> list[Row]:
    lines, sessions = line_traffic(bench.size(400, 40)), session_traffic(bench.size(20_000, 2000))
    rows = []
    for what, name, traffic in (
        ("lines", "lines.py", lines),
        ("sessions", "sessions.py", sessions),
    ):
        log = bench.folder / f"recorded-{what}"
        contestants = [
            Contestant(SUPERVISED, partial(peers.supervised, name), traffic),
            Contestant(RECORDED, partial(peers.recorded, log, name), traffic),
        ]
        rows += race(bench, f"recorded {what}", f"{what}/s", contestants, base=SUPERVISED)
    return rows


CASE = Case("recorded", "What recording costs at full load", _run)
