"""What waits for a slow handler is packed, holds up nobody else, and comes in its order."""

from __future__ import annotations

from collections import deque

import gevent
from hypothesis import given
from hypothesis import strategies as st

from greenfilter import Context, Filter
from greenfilter._runtime import backlog
from greenfilter._runtime.backlog import Backlog, pack
from greenfilter.protocol import EVENTS, PHASES, Chunk, Session, Stream
from tests.runtime.driving import Pipe, report, request, until

SESSION = Session(b"0000000000000001", True, 0)
STREAM = Stream(SESSION, b"0" * 16, b"filter|0.7|1.0|smtp-in|data-line|1|2|x")
HEAD = b"report|0.7|1.0|smtp-in|"

ITEMS = st.lists(
    st.tuples(
        st.sampled_from(["state", "handled", "request", "lines", "dot"]),
        st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"")),
        st.integers(1, 150),
    ),
    max_size=12,
)


def made(kind: str, text: bytes) -> object:
    if kind == "state":
        return HEAD + b"link-identify|0000000000000001|EHLO|" + text
    if kind == "handled":
        line = HEAD + b"protocol-client|0000000000000001|" + text
        return Context(SESSION, EVENTS["protocol_client"], line, 0)
    if kind == "request":
        line = b"filter|0.7|1.0|smtp-in|noop|0000000000000001|00000000000000aa|" + text
        return Context(SESSION, PHASES["noop"], line, len(line) - len(text))
    return Chunk(STREAM, [text], kind == "dot")


def told(item: object) -> list[object]:
    """What an item is, so that it can be compared with what it was packed from."""
    if isinstance(item, Context):
        return [(item.hook, item.line, item.body)]
    if isinstance(item, Chunk):
        lines = item.spilled() if item.spilled else item.lines
        return [*lines, *([b"the dot"] if item.ended else [])]
    return [item]


def drained(queue: deque) -> list[object]:
    found: list[object] = []
    while queue:
        item = queue.popleft()
        if isinstance(item, Backlog):
            item.take_back(SESSION)
        else:
            found += told(item)
    return found


@given(ITEMS, st.integers(1, 3))
def test_a_packed_queue_has_the_same_items_in_the_same_order(groups, times):
    SESSION.queue.clear()
    expected = []
    for _ in range(times):
        for kind, text, count in groups:
            for _ in range(count):
                item = made(kind, text)
                expected += told(item)
                SESSION.queue.append(item)
        pack(SESSION.queue)
    requests = sum(count for kind, _, count in groups if kind in ("request", "dot")) * times
    assert len(SESSION.queue) <= backlog.KEPT_EVENTS + 2 * requests + 2 * len(groups) * times + 1
    assert drained(SESSION.queue) == expected


def test_without_room_on_the_disk_events_stay_in_memory(monkeypatch):
    monkeypatch.setattr(backlog, "_MAX_EVENT_BYTES", 100)
    SESSION.queue.clear()
    items = [made("handled", b"%d" % number) for number in range(200)]
    SESSION.queue.extend(items)
    pack(SESSION.queue)
    assert list(SESSION.queue) == items
    SESSION.queue.clear()


def test_one_client_with_many_events_and_a_slow_handler_holds_up_nobody_else():
    app, gate, seen = Filter("slow"), gevent.event.Event(), []

    @app.report.protocol_client(deadline=1000.0)
    def handler(ctx, command):
        gate.wait()
        seen.append((ctx.session.identity, command))

    app.filter.noop(lambda ctx: None)
    with Pipe(app) as pipe:
        commands = [f"NOOP {number}" for number in range(20_000)]
        lines = [report("protocol-client", 1, command) for command in commands]
        for start in range(0, len(lines), 1000):
            pipe.send(*lines[start : start + 1000])
            pipe.clock.advance(0.1)
            gevent.idle()
        pipe.send(report("link-identify", 1, "EHLO", "late"), request("noop", 1))
        pipe.send(request("noop", 2))
        until(lambda: pipe.results(2))
        sessions = pipe.runtime._connection.sessions.values()
        queue = max((session.queue for session in sessions), key=len)
        until(lambda: (pipe.clock.advance(0.1), len(queue) < 200)[1])
        gate.set()
        until(lambda: pipe.results(1))
    assert [command for _, command in seen] == commands
    assert {identity for identity, _ in seen} == {None}
