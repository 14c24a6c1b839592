"""What waits for a busy session: small, in order, and in nobody else's way."""

from __future__ import annotations

import errno
import os
import tracemalloc

import gevent.event
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenfilter import Filter
from greenfilter._runtime.backlog import Reports, shrink
from greenfilter.protocol import EVENTS, PHASES, Call, Chunk, Session, Stream

from .driving import Pipe, begin, report, request, sid, until

SID = sid(1).encode()


def waiting(session):
    """Take everything out of a session's queue as whoever works on it does."""
    found = []
    while session.queue:
        item = session.queue.popleft()
        if type(item) is Reports:
            item.restore(session)
        elif type(item) is bytes:
            found.append(item)
        elif type(item) is Chunk:
            lines = [*(item.spilled.read() if item.spilled else []), *item.lines]
            found += [(item.stream, line) for line in [*lines, *([b"."] if item.ended else [])]]
        else:
            found.append((item.hook, item.line, item.body))
    return found


def context(event, number):
    line = report(event, 1, f"{number}\r").encode("latin-1")
    return Call(Session(SID), EVENTS[event.replace("-", "_")], line, 0)


ITEMS = st.one_of(
    st.integers(1, 60).map(lambda count: ("kept", count)),
    st.integers(1, 60).map(lambda count: ("delivered", count)),
    st.integers(0, 3).map(lambda count: ("lines", count)),
    st.just(("dot", 1)),
    st.just(("request", 1)),
    st.just(("shrink", 1)),
    st.just(("take", 5)),
)


@given(st.lists(ITEMS, max_size=30))
def test_what_is_shrunk_comes_back_in_its_order(steps):
    session, plain = Session(SID), Session(SID)
    stream, number = None, 0
    for kind, count in steps:
        for _ in range(count):
            number += 1
            if kind == "kept":
                item = report("tx-rcpt", 1, f"{number}").encode()
            elif kind == "delivered":
                item = context("protocol-client", number)
            elif kind in ("lines", "dot"):
                stream = stream or Stream(session, b"b" * 16, request("data-line").encode())
                lines = [b"%d" % number] * (kind == "lines")
                session.queue.append(Chunk(stream, list(lines), kind == "dot"))
                plain.queue.append(Chunk(stream, list(lines), kind == "dot"))
                stream = None if kind == "dot" else stream
                continue
            elif kind == "request":
                line = request("noop").encode()
                item = Call(session, PHASES["noop"], line, len(line))
            else:
                continue
            session.queue.append(item)
            plain.queue.append(item)
        if kind == "shrink":
            shrink(session)
        if kind == "take" and session.queue:
            item = session.queue[0]
            if type(item) is Reports:
                session.queue.popleft()
                item.restore(session)
    assert waiting(session) == waiting(plain)


def test_lines_that_come_one_by_one_become_few_chunks():
    session = Session(SID)
    stream = Stream(session, b"b" * 16, request("data-line").encode())
    for _ in range(100):
        session.queue.extend(Chunk(stream, [b"x"], False) for _ in range(10))
        shrink(session)
    session.queue.append(Chunk(stream, [], True))
    assert shrink(session) == 1
    assert waiting(session) == [(stream, b"x")] * 1000 + [(stream, b".")]


def test_chunks_of_two_messages_stay_apart():
    session = Session(SID)
    first, second = (Stream(session, b"b" * 16, request("data-line").encode()) for _ in range(2))
    session.queue.extend([Chunk(first, [b"one"], True), Chunk(second, [b"two"], False)])
    shrink(session)
    assert waiting(session) == [(first, b"one"), (first, b"."), (second, b"two")]


def test_many_reports_take_little_memory():
    session = Session(SID)
    tracemalloc.start()
    try:
        for number in range(30):
            session.queue.extend(context("protocol-client", number) for _ in range(1000))
            left = shrink(session)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
    assert left < 2_000
    assert len(waiting(session)) == 30_000


@pytest.mark.parametrize("register", ["report", "lines"])
def test_a_slow_handler_of_one_client_holds_up_no_other(register):
    app, gate, seen = Filter("slow"), gevent.event.Event(), []
    app.filter.noop(lambda ctx: None)

    @app.report.protocol_client(deadline=100.0)
    def client(ctx, command):
        if register == "report":
            gate.wait()
        seen.append(command)

    @app.lines(deadline=100.0)
    def lines(ctx, lines):
        for line in lines:
            gate.wait()
            seen.append(line.decode())
            yield line

    with Pipe(app) as pipe:
        pipe.send(*begin())
        expected = []
        for number in range(0, 120_000, 1000):
            chosen = [f"{count}" for count in range(number, number + 1000)]
            expected += chosen
            if register == "report":
                pipe.send(*(report("protocol-client", 1, each) for each in chosen))
            else:
                pipe.send(*(request("data-line", 1, each) for each in chosen))
            pipe.clock.advance(0.1)
        pipe.send(request("noop", 2))
        until(lambda: pipe.results(2) == ["proceed"])
        assert seen == []
        if register == "lines":
            pipe.send(request("data-line", 1, "."))
        gate.set()
        until(lambda: len(seen) == len(expected), 60.0)
        assert seen == expected
        if register == "lines":
            until(lambda: pipe.data() == [*expected, "."])


def test_the_state_of_a_session_is_true_when_its_reports_have_waited():
    app, gate, seen = Filter("slow"), gevent.event.Event(), []

    @app.report.tx_begin(deadline=100.0)
    def begins(ctx, message_id):
        gate.wait()

    @app.filter.data
    def data(ctx):
        seen.append((ctx.tx.mail_from, len(ctx.tx.rcpt_to)))

    with Pipe(app) as pipe:
        rcpt = [report("tx-rcpt", 1, "0000abcd", "ok", f"{n}@example.org") for n in range(500)]
        pipe.send(*begin(), *rcpt)
        until(lambda: pipe.runtime._connection.sessions)
        pipe.clock.advance(0.1)
        pipe.send(request("data"))
        gate.set()
        until(lambda: pipe.results() == ["proceed"])
    assert seen == [("alice@example.net", 501)]


def test_on_a_full_disk_reports_stay_in_memory_and_are_counted(monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    session, plain = Session(SID), Session(SID)
    for number in range(3000):
        session.queue.append(context("protocol-client", number))
        plain.queue.append(context("protocol-client", number))
    assert shrink(session) > len(session.queue) + 100
    assert waiting(session) == waiting(plain)


def test_a_report_that_has_waited_sees_the_state_of_its_own_time():
    app, gate, seen = Filter("slow"), gevent.event.Event(), []

    @app.report.protocol_client(deadline=100.0)
    def client(ctx, command):
        gate.wait()
        seen.append((ctx.session.identity, command))

    with Pipe(app) as pipe:
        early = [report("protocol-client", 1, f"{number}") for number in range(500)]
        pipe.send(*early, report("link-identify", 1, "EHLO", "late"))
        pipe.send(report("protocol-client", 1, "last"))
        until(lambda: pipe.runtime._connection.sessions)
        session = next(iter(pipe.runtime._connection.sessions.values()))
        until(lambda: len(session.queue) > 500)
        pipe.clock.advance(0.1)
        until(lambda: len(session.queue) < 100)
        gate.set()
        until(lambda: len(seen) == 501)
    assert seen == [(None, f"{number}") for number in range(500)] + [("late", "last")]
