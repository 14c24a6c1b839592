"""``filter.data_line``, and messages that no handler edits."""

from __future__ import annotations

import threading

import gevent
import gevent.event
import pytest

from greenfilter import DROP, Filter, HandlerTimeout, disconnect, reject
from greenfilter.testing import FakeSmtpd

from .driving import (
    MESSAGE,
    TEMPFAIL,
    Pipe,
    in_data,
    in_transaction,
    link_connect,
    report,
    request,
    until,
)

LINES = [b"Subject: hello", b"", b".dot", b"..two", b"caf\xe9 \xff", b"a\rb", b"", b"end"]


def editing(function, **options):
    app = Filter("lines")
    app.filter.data_line(**options)(function)
    return app


def sent_through(app, lines=LINES):
    """What a message becomes; lines have no end."""
    with FakeSmtpd(app, received=False) as smtpd:
        message = in_transaction(smtpd).data(b"\r\n".join([*lines, b""])).message
    assert message.endswith(b"\r\n")
    return message.split(b"\r\n")[:-1]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, [b"two"]),
        (b"new", [b"new"]),
        (bytearray(b"new"), [b"new"]),
        (b"", [b""]),
        (b".", [b"."]),
        (b".dot", [b".dot"]),
        ([], []),
        ([b"a", b".", b""], [b"a", b".", b""]),
        ((b"a",), [b"a"]),
        (DROP, []),
    ],
    ids=repr,
)
def test_what_a_handler_returns_takes_the_place_of_the_line(result, expected):
    app = editing(lambda ctx, line: result if line == b"two" else None)
    assert sent_through(app, [b"one", b"two", b"three"]) == [b"one", *expected, b"three"]


def test_a_generator_gives_the_lines_that_take_its_place():
    def handler(ctx, line):
        yield line
        yield b"> " + line

    assert sent_through(editing(handler), [b".a", b"b"]) == [b".a", b"> .a", b"b", b"> b"]


def test_the_handler_gets_lines_without_their_stuffing_and_no_final_dot():
    seen = []
    app = editing(lambda ctx, line: seen.append(line))
    assert sent_through(app) == LINES
    assert seen == LINES


def test_dropping_every_line_leaves_an_empty_message():
    app = editing(lambda ctx, line: DROP)
    with FakeSmtpd(app, received=False) as smtpd:
        assert in_transaction(smtpd).data(MESSAGE).message == b""


@pytest.mark.parametrize("message", [b"", b"one\r\n", b"\r\n", b".\r\n"])
def test_small_messages_pass(message):
    for app in (editing(lambda ctx, line: None), Filter("nothing")):
        app.report.link_connect(lambda ctx, *parameters: None)
        with FakeSmtpd(app, received=False) as smtpd:
            assert in_transaction(smtpd).data(message).message == message


@pytest.mark.parametrize(
    "wrong",
    ["text", b"a\nb", [b"fine", b"a\nb"], [b"fine", "text"], 7, [None], object, True],
    ids=repr,
)
@pytest.mark.parametrize("on_error", ["tempfail", "proceed"])
def test_what_is_no_line_keeps_the_line_and_applies_the_policy(wrong, on_error, caplog):
    app = editing(lambda ctx, line: wrong if line == b"two" else b"> " + line, on_error=on_error)
    with FakeSmtpd(app, received=False) as smtpd:
        reply = in_transaction(smtpd).data(b"one\ntwo\nthree\n")
    if on_error == "proceed":
        assert reply.message == b"> one\r\ntwo\r\nthree\r\n"
    else:
        assert reply.lines == (TEMPFAIL,)
    assert "filter.data_line" in caplog.text


def test_a_generator_that_raises_midway_keeps_the_line():
    def handler(ctx, line):
        yield b"> " + line
        if line == b"two":
            raise ValueError("midway")

    app = editing(handler, on_error="proceed")
    assert sent_through(app, [b"one", b"two", b"three"]) == [b"> one", b"two", b"three"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(), KeyboardInterrupt()], ids=repr)
def test_after_an_error_the_handler_is_not_called_again_for_the_message(error):
    calls = []

    def handler(ctx, line):
        calls.append(line)
        if line == b"two":
            raise error

    app = editing(handler, on_error=reject(554, "no"))
    with FakeSmtpd(app, received=False) as smtpd:
        session = in_transaction(smtpd)
        assert session.data(b"one\ntwo\nthree\n").lines == ("554 no",)
        assert session.mail_from("alice@example.net").ok
        assert session.rcpt_to("bob@example.org").ok
        assert session.data(b"four\n").message == b"four\r\n"
    assert calls == [b"one", b"two", b"four"]


@pytest.mark.parametrize("policy", [disconnect(421, "bye"), reject(550, "no")])
def test_a_decision_as_policy_is_applied_at_commit(policy):
    def handler(ctx, line):
        raise ValueError

    with FakeSmtpd(editing(handler, on_error=policy)) as smtpd:
        assert in_transaction(smtpd).data(MESSAGE).lines == (policy.value,)


def test_the_decision_for_a_message_comes_before_that_of_the_commit_handler():
    def handler(ctx, line):
        raise ValueError

    app = editing(handler)
    commits = []
    app.filter.commit(lambda ctx: commits.append(ctx.tx.rcpt_to) or reject(550, "commit"))
    with FakeSmtpd(app) as smtpd:
        assert in_transaction(smtpd).data(MESSAGE).lines == (TEMPFAIL,)
    assert commits == []


def test_without_a_failure_the_commit_handler_decides():
    app = editing(lambda ctx, line: None)
    app.filter.commit(lambda ctx: reject(550, "commit"))
    with FakeSmtpd(app) as smtpd:
        assert in_transaction(smtpd).data(MESSAGE).lines == ("550 commit",)


def test_a_late_handler_keeps_its_line_and_the_message_is_refused():
    ends = []

    def handler(ctx, line):
        if line == b"two":
            try:
                gevent.event.Event().wait()
            except HandlerTimeout:
                ends.append(line)
                raise

    app = editing(handler, deadline=5.0)
    with FakeSmtpd(app, received=False) as smtpd:
        pending = smtpd.start(in_transaction(smtpd).data, b"one\ntwo\nthree\n")
        smtpd.clock.advance(5.2)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
    assert ends == [b"two"]


def test_a_late_handler_in_a_thread_loses_no_line():
    go, seen = threading.Event(), []

    def handler(ctx, line):
        seen.append(line)
        if line == b"two":
            go.wait(10)

    app = editing(handler, deadline=5.0, thread=True, on_error="proceed")
    with FakeSmtpd(app, received=False) as smtpd:
        pending = smtpd.start(in_transaction(smtpd).data, b"one\ntwo\nthree\n")
        until(lambda: b"two" in seen)
        smtpd.clock.advance(5.2)
        assert pending.get(timeout=5).message == b"one\r\ntwo\r\nthree\r\n"
        go.set()


@pytest.mark.parametrize("blocked", [b"two", b"last"])
def test_a_handler_that_does_not_end_leaves_a_message_that_ends(blocked):
    gate = gevent.event.Event()

    def handler(ctx, line):
        while line == blocked and not gate.is_set():
            try:
                gate.wait()
            except BaseException:
                continue

    app = editing(handler, deadline=5.0)
    with FakeSmtpd(app) as smtpd:
        session = in_data(smtpd)
        session.data_lines([b"one", b"two"])
        pending = smtpd.start(session.data_end) if blocked == b"two" else None
        if pending is None:
            session.data_lines([b"last"])
            pending = smtpd.start(session.data_end)
        smtpd.clock.advance(8.0)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
        assert session.mail_from("alice@example.net").ok
        gate.set()
        assert session.quit().ok


@pytest.mark.parametrize("mode", ["data_line", "lines", "message", "tap", None])
def test_a_message_cut_at_every_place_is_the_same(mode):
    app = Filter("cut")
    if mode == "data_line":
        app.filter.data_line(lambda ctx, line: line)
    elif mode == "lines":

        @app.lines
        def lines(ctx, lines):
            yield from lines
    elif mode == "message":
        app.message(lambda ctx, message: None)
    elif mode == "tap":
        app.tap(lambda ctx, lines: list(lines) and None)
    else:
        app.filter.commit(lambda ctx: None)
    texts = [b"Subject: x", b"", b"..stuffed", b"caf\xe9", b"."]
    data = b"".join(request("data-line").encode() + line + b"\n" for line in texts)
    with Pipe(app) as pipe:
        number = 0
        for place in range(0, len(data), 3):
            number += 1
            piece = data.replace(
                request("data-line").encode(), request("data-line", number).encode()
            )
            pipe.send(link_connect(number))
            pipe.send_raw(piece[:place])
            gevent.sleep(0)
            pipe.send_raw(piece[place:])
            pipe.send(request("commit", number), report("link-disconnect", number))
        until(lambda: len([line for line in pipe.lines if line.endswith("|proceed")]) == number)
        expected = [line.decode("latin-1") for line in texts]
        if mode is not None:
            assert all(pipe.data(n) == expected for n in range(1, number + 1))


def test_lines_of_a_blocked_session_wait_on_disk():
    app, gate = Filter("blocked"), gevent.event.Event()

    @app.filter.data_line(deadline=1000.0)
    def handler(ctx, line):
        gate.wait()

    with Pipe(app) as pipe:
        content = [f"{number:05}" + "x" * 995 for number in range(5000)]
        lines = [request("data-line") + line for line in content]
        pipe.send(*lines[:1])
        sessions = pipe.runtime._connection.sessions
        until(lambda: sessions)
        (session,) = sessions.values()
        for start in range(1, len(lines), 500):
            pipe.send(*lines[start : start + 500])
            pipe.clock.advance(0.1)
        pipe.send(request("data-line") + ".")
        until(lambda: session.queue[-1].ended)
        pipe.clock.advance(0.1)
        waiting = list(session.queue)
        assert sum(len(line) for chunk in waiting for line in chunk.lines) == 0
        spool = waiting[0].spilled.spool
        assert all(chunk.spilled is None or chunk.spilled.spool is spool for chunk in waiting)
        assert spool.size > 4_000_000
        file, _, tail = spool._state
        assert file is not None
        assert len(tail) < 200_000
        waiting.clear()
        gate.set()
        until(lambda: pipe.lines and pipe.lines[-1].endswith("|."))
        assert pipe.data() == [*content, "."]
