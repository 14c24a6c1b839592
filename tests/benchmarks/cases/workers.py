"""How callbacks that compute scale with worker processes."""

from __future__ import annotations

from .. import peers
from ..bench import SUPERVISED, Bench, Case, Contestant, Row, race
from ..wire import Sessions, Traffic, build

HOOKS = frozenset({"connect", "link-disconnect"})


def _run(bench: Bench) -> list[Row]:
    sessions = bench.size(4000, 200)

    def traffic(_: frozenset[str]) -> Traffic:
        # One lane: two workers answer in an order of their own.
        return build(Sessions(HOOKS), sessions, units=sessions, lanes=1, at_once=200)

    one = Contestant(SUPERVISED, lambda: peers.supervised("computing.py"), traffic)
    two = Contestant(
        "greenfilter 2 workers",
        lambda: peers.supervised("computing.py", workers=2),
        traffic,
        1.7,
    )
    return race(bench, "computing, next to one worker", "sessions/s", [one, two], base=SUPERVISED)


CASE = Case("workers", "Callbacks that compute, by worker processes", _run)
