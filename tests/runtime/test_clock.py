"""What time brings about: deadlines, spilled queues, and sessions that are let go."""

from __future__ import annotations

import errno
import os

import gevent
import gevent.event
import pytest

from greenfilter import Filter
from greenfilter._mail.spool import Spool
from greenfilter._runtime import clock
from greenfilter._runtime.backlog import spill
from greenfilter.protocol import Chunk, Session, Stream
from greenfilter.testing import FakeSmtpd

from .driving import Pipe, greeted, link_connect, report, request, until


def chunk(lines):
    stream = Stream(Session(b"0" * 16), b"1" * 16, b"filter|0.7|1.0|smtp-in|data-line")
    return Chunk(stream, lines, False)


def test_a_spilled_chunk_gives_its_own_lines_back():
    spool = Spool(memory_bytes=10)
    contents = [[b"one", b"a\r", b""], [b""], [b"..dot", b"\xff\xe9" * 50]]
    chunks = [chunk(list(lines)) for lines in contents]
    for each in chunks:
        spill(each, spool)
    assert [each.lines for each in chunks] == [[], [], []]
    assert [each.spilled() for each in chunks] == contents


def test_a_chunk_for_which_there_is_no_room_stays_in_memory(tmp_path):
    each = chunk([b"x" * 100])
    spill(each, Spool(memory_bytes=10, directory=str(tmp_path / "missing")))
    assert each.spilled is None
    assert each.lines == [b"x" * 100]


def each_line(app, gate):
    @app.filter.data_line(deadline=100.0, on_error="proceed")
    def handler(ctx, line):
        gate.wait()


def generated(app, gate):
    @app.lines(deadline=100.0, on_error="proceed")
    def handler(ctx, lines):
        for line in lines:
            gate.wait()
            yield line


def begun(pipe):
    """Send the first line of a message; return its session once it is there."""
    pipe.send(request("data-line") + "one")
    sessions = pipe.runtime._connection.sessions
    until(lambda: sessions)
    (session,) = sessions.values()
    return session


def lines_in_memory(session):
    return sum(len(chunk.lines) for chunk in session.queue)


@pytest.mark.parametrize("register", [each_line, generated])
def test_a_spool_that_cannot_be_read_back_refuses_the_message(register, caplog):
    app, gate = Filter("disk"), gevent.event.Event()
    register(app, gate)
    with Pipe(app) as pipe:
        session = begun(pipe)
        pipe.send(request("data-line") + "two", request("data-line") + ".", request("commit"))
        until(lambda: len(session.queue) == 2)
        pipe.clock.advance(0.1)
        session.queue[0].spilled.spool.close()
        gate.set()
        until(lambda: pipe.data() == ["one", "."])
        until(lambda: pipe.results())
    assert pipe.results()[0].startswith("reject|451")
    assert "its spool was closed; commit will be answered reject" in caplog.text


@pytest.mark.parametrize("register", [each_line, generated])
def test_a_disk_that_is_full_when_lines_wait_is_told_in_one_line_and_refuses_the_message(
    register, caplog, monkeypatch
):
    def full(fd, data, position):
        raise OSError(errno.ENOSPC, "No space left on device")

    app, gate = Filter("disk"), gevent.event.Event()
    register(app, gate)
    with Pipe(app) as pipe:
        session = begun(pipe)
        for count in range(1, 6):
            pipe.send(*[request("data-line") + "x" * 900] * 50)
            # What waits on the spool already has no place in memory.
            until(lambda count=count: lines_in_memory(session) == 50 * max(1, count - 1))
            pipe.clock.advance(0.1)
            monkeypatch.setattr(os, "pwrite", full)
        pipe.send(request("data-line") + ".", request("commit"))
        gate.set()
        until(lambda: pipe.results())
    assert pipe.results()[0].startswith("reject|451")
    assert caplog.text.count("No space left on device; free space there") == 1
    assert len(caplog.records) == 1


def test_while_too_many_events_wait_for_a_slow_report_handler_smtpd_waits(caplog, monkeypatch):
    monkeypatch.setattr(clock, "_MAX_QUEUED", 50)
    app, gate, seen = Filter("slow"), gevent.event.Event(), []

    @app.report.protocol_client(deadline=100.0)
    def handler(ctx, command):
        gate.wait()
        seen.append(command)

    app.filter.noop(lambda ctx: None)
    with Pipe(app) as pipe:
        pipe.send(*[report("protocol-client", 1, "NOOP")] * 100)
        until(lambda: pipe.runtime._wire._paused)
        pipe.send(report("protocol-client", 1, "LAST"), request("noop", 2))
        for _ in range(3):
            pipe.clock.advance(0.1)
            gevent.idle()
        (session,) = pipe.runtime._connection.sessions.values()
        assert len(session.queue) == 99
        gate.set()
        until(lambda: pipe.results(2) and len(seen) == 101)
        assert seen[-1] == "LAST"
    assert caplog.text.count("events wait for handlers") == 1


def test_a_session_that_is_used_is_kept_however_long_it_lasts():
    app = Filter("kept", deadline=30.0)
    app.filter.noop(lambda ctx: None)
    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        for _ in range(20):
            smtpd.clock.advance(200.0)
            assert session.noop().ok


def test_a_session_whose_answer_is_deferred_for_long_is_not_let_go():
    app, asked = Filter("waits", deadline=30.0), []

    @app.filter.mail_from(deadline=2000.0)
    def mail_from(ctx, sender):
        asked.append(ctx)
        return ctx.defer()

    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        pending = smtpd.start(session.mail_from, "alice@example.net")
        until(lambda: asked)
        for _ in range(19):
            smtpd.clock.advance(100.0)
        assert not asked[0].session.closed
        asked[0].reply()
        assert pending.get().ok
        assert asked[0].session.identity == "client.example.net"


def test_a_session_whose_callback_runs_is_not_let_go(caplog):
    app, gate = Filter("runs"), gevent.event.Event()
    states = []

    @app.report.link_connect(deadline=100_000.0)
    def connected(ctx, *parameters):
        gate.wait()
        states.append(ctx.session.closed)

    with Pipe(app) as pipe:
        pipe.send(link_connect())
        until(lambda: pipe.runtime._connection.sessions)
        for _ in range(20):
            pipe.clock.advance(200.0)
        gate.set()
        until(lambda: states == [False])
        pipe.clock.advance(1000.0)
        assert not pipe.runtime._connection.sessions
    assert caplog.text.count("said nothing of this session") == 1


def test_a_forgotten_session_ends_its_message():
    app, ends = Filter("message"), []

    @app.lines
    def handler(ctx, lines):
        try:
            yield from lines
        finally:
            ends.append(ctx.session.closed)

    with Pipe(app) as pipe:
        pipe.send(request("data-line") + "one")
        until(lambda: pipe.data() == ["one"])
        for _ in range(10):
            pipe.clock.advance(100.0)
        until(lambda: ends == [True])


def test_the_request_of_a_session_that_is_let_go_is_still_answered():
    app, gate = Filter("full", max_sessions=1), gevent.event.Event()
    app.filter.ehlo(lambda ctx, identity: gate.wait() and None)
    with Pipe(app) as pipe:
        pipe.send(request("ehlo", 1, "x"), request("ehlo", 2, "x"), request("ehlo", 3, "x"))
        until(lambda: len(pipe.runtime._workers.busy) == 3)
        gate.set()
        until(lambda: [pipe.results(number) for number in (1, 2, 3)] == [["proceed"]] * 3)


def test_requests_past_their_deadline_are_answered_while_threads_reply():
    app, kept = Filter("race", deadline=5.0), []

    @app.filter.ehlo
    def ehlo(ctx, identity):
        kept.append(ctx)
        return ctx.defer()

    with Pipe(app) as pipe:
        count = 2000
        pipe.send(*(request("ehlo", number, "x") for number in range(count)))
        until(lambda: len(kept) == count)
        pool = gevent.get_hub().threadpool
        replies = pool.spawn(lambda: sum(ctx.reply() for ctx in kept))
        pipe.clock.advance(5.2)
        assert 0 <= replies.get(timeout=10) <= count
        until(lambda: len(pipe.lines) == count)
        pipe.send(report("link-disconnect", 1))


def test_a_tick_with_nothing_to_do_does_nothing():
    with Pipe(Filter("idle")) as pipe:
        pipe.clock.advance(10_000.0)
        assert pipe.lines == []
