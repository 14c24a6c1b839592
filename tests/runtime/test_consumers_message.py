"""``message``: the handler gets the whole message."""

from __future__ import annotations

import tempfile
import threading

import gevent
import gevent.event
import pytest
from greenlet import GreenletExit

from greenfilter import Filter, HandlerTimeout, bypass, disconnect, junk, proceed, reject, report
from greenfilter._mail import email
from greenfilter.errors import SpoolError
from greenfilter.testing import FakeSmtpd

from .driving import MESSAGE, TEMPFAIL, Pipe, in_data, in_transaction, request, until


def whole(function, **options):
    app = Filter("whole")
    app.message(**options)(function)
    return app


def send(app, data=b"Subject: x\n\none\n"):
    with FakeSmtpd(app, received=False) as smtpd:
        return in_transaction(smtpd).data(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"one\n", b"\n", b".\n", b"a: b\n\n.\n..\n\xff\xe9 a\rb\n", b"no headers at all\n"],
)
def test_none_passes_the_message_unchanged(data):
    seen = []
    app = whole(lambda ctx, message: seen.append(message.raw))
    expected = data.replace(b"\n", b"\r\n")
    assert send(app, data).message == expected
    assert seen == [expected]


def test_edits_are_used():
    def handler(ctx, message):
        message.headers.prepend("X-First", "1")
        message.body = message.body + b".last"

    assert send(whole(handler)).message == b"X-First: 1\r\nSubject: x\r\n\r\none\r\n.last\r\n"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (b"", b""),
        (b"new", b"new\r\n"),
        (b"a\r\n.b\n\nc\r\n", b"a\r\n.b\r\n\r\nc\r\n"),
        (bytearray(b".\n"), b".\r\n"),
    ],
    ids=repr,
)
def test_returned_bytes_are_the_message(result, expected):
    assert send(whole(lambda ctx, message: result)).message == expected


@pytest.mark.parametrize("decision", [reject(554, "no"), disconnect(421, "bye")], ids=repr)
def test_a_decision_is_applied_at_commit(decision):
    assert send(whole(lambda ctx, message: decision)).lines == (decision.value,)


def test_proceed_passes_the_original():
    def handler(ctx, message):
        message.headers.prepend("X-First", "1")
        return proceed()

    assert send(whole(handler)).message == b"Subject: x\r\n\r\none\r\n"


def test_junk_marks_the_message_as_edited():
    def handler(ctx, message):
        message.body = b"two"
        return junk()

    assert send(whole(handler)).message == b"X-Spam: Yes\r\nSubject: x\r\n\r\ntwo\r\n"


def test_junk_does_not_mark_a_message_twice():
    marked = b"X-Spam: Yes\nSubject: x\n\none\n"
    reply = send(whole(lambda ctx, message: junk()), marked)
    assert reply.message == marked.replace(b"\n", b"\r\n")


def test_bypass_outside_a_chain_is_proceed():
    assert send(whole(lambda ctx, message: bypass())).message == b"Subject: x\r\n\r\none\r\n"


@pytest.mark.parametrize("wrong", ["text", 7, True, [b"line"], object, report("hello")], ids=repr)
def test_a_wrong_result_applies_the_policy(wrong):
    assert send(whole(lambda ctx, message: wrong)).lines == (TEMPFAIL,)
    reply = send(whole(lambda ctx, message: wrong, on_error="proceed"))
    assert reply.message == b"Subject: x\r\n\r\none\r\n"


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), SystemExit(), KeyboardInterrupt(), GreenletExit(), SpoolError("full")],
    ids=repr,
)
@pytest.mark.parametrize("thread", [False, True])
def test_an_error_applies_the_policy_to_the_original(error, thread, caplog):
    def handler(ctx, message):
        message.body = b"half done"
        raise error

    assert send(whole(handler, thread=thread)).lines == (TEMPFAIL,)
    reply = send(whole(handler, thread=thread, on_error="proceed"))
    assert reply.message == b"Subject: x\r\n\r\none\r\n"
    assert type(error).__name__ in caplog.text


def test_a_message_above_max_message_bytes_is_refused_whatever_the_policy(caplog):
    calls = []
    app = whole(lambda ctx, message: calls.append(1), on_error="proceed")
    app.max_message_bytes = 1000
    with FakeSmtpd(app) as smtpd:
        session = in_transaction(smtpd)
        assert session.data(b"x\n" * 1000).lines == (TEMPFAIL,)
        assert session.mail_from("alice@example.net").ok
        assert session.rcpt_to("bob@example.org").ok
        assert session.data(b"small\n").ok
    assert calls == [1]
    assert "above the limit of 1000 bytes" in caplog.text


def test_a_big_message_is_streamed_to_a_slow_reader():
    app = whole(lambda ctx, message: message.headers.prepend("X-First", "1"))
    content = ["x" * 900 for _ in range(20_000)]
    with Pipe(app) as pipe:
        pipe.send(*(request("data-line") + line for line in ["Subject: x", "", *content]))
        pipe.reading = False
        pipe.send(request("data-line") + ".")
        wire = pipe.runtime._channel
        until(lambda: not wire._drained.is_set())
        pipe.clock.advance(60.0)
        assert len(wire._stuck) + sum(map(len, wire._out)) < 4 << 20
        pipe.reading = True
        until(lambda: pipe.lines and pipe.lines[-1].endswith("|."), 20)
        pipe.send(request("commit"))
        until(lambda: pipe.results() == ["proceed"])
    assert pipe.data() == ["X-First: 1", "Subject: x", "", *content, "."]


def test_a_handler_in_a_thread_may_use_all_of_its_context():
    seen = []

    def handler(ctx, message):
        seen.append(threading.get_ident())
        seen.append((ctx.tx.mail_from, ctx.tx.rcpt_to, ctx.session.identity, ctx.incoming))
        ctx.log.info("in a thread")
        message.headers.append("X-Thread", "yes")

    assert b"X-Thread: yes" in send(whole(handler, thread=True)).message
    assert seen[0] != threading.get_ident()
    assert seen[1] == ("alice@example.net", ["bob@example.org"], "client.example.net", True)


@pytest.mark.parametrize("thread", [False, True])
def test_a_late_handler_applies_the_policy(thread):
    go = threading.Event()
    begun, ends = [], []

    def handler(ctx, message):
        begun.append("begun")
        if thread:
            go.wait(10)
            ends.append("late")
            return b"late"
        try:
            gevent.event.Event().wait()
        except HandlerTimeout:
            ends.append("late")
            raise

    app = whole(handler, thread=thread, deadline=5.0, on_error="proceed")
    with FakeSmtpd(app, received=False) as smtpd:
        pending = smtpd.start(in_transaction(smtpd).data, b"one\n")
        until(lambda: begun)
        smtpd.clock.advance(5.2)
        assert pending.get(timeout=5).message == b"one\r\n"
        go.set()
        until(lambda: ends == ["late"])


def test_a_handler_that_does_not_end_leaves_a_message_that_ends():
    gate = gevent.event.Event()

    def handler(ctx, message):
        while not gate.is_set():
            try:
                gate.wait()
            except BaseException:
                continue

    with FakeSmtpd(whole(handler, deadline=5.0, on_error="proceed")) as smtpd:
        session = in_transaction(smtpd)
        pending = smtpd.start(session.data, MESSAGE)
        smtpd.clock.advance(8.0)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
        gate.set()
        assert session.quit().ok


def test_a_message_may_not_be_read_when_it_is_over():
    kept = []
    assert send(whole(lambda ctx, message: kept.append(message))).ok
    with pytest.raises(SpoolError):
        _ = kept[0].raw


def test_a_client_that_leaves_midway_is_not_handled():
    calls = []
    app = whole(lambda ctx, message: calls.append(message.raw))
    with FakeSmtpd(app) as smtpd:
        session = in_data(smtpd)
        session.data_lines([b"one"])
        session.disconnect()
        assert in_transaction(smtpd).data(MESSAGE).ok
    assert len(calls) == 1


def test_the_decision_for_a_message_comes_before_that_of_the_commit_handler():
    app = whole(lambda ctx, message: reject(554, "message"))
    app.filter.commit(lambda ctx: reject(550, "commit"))
    assert send(app).lines == ("554 message",)


def test_a_spool_that_cannot_be_written_refuses_the_message(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    app = whole(lambda ctx, message: None, on_error="proceed")
    with FakeSmtpd(app) as smtpd:
        session = in_transaction(smtpd)
        assert session.data((b"x" * 900 + b"\n") * 2000).lines == (TEMPFAIL,)
        assert session.quit().ok
    assert "cannot keep a message" in caplog.text


def test_as_email_parses_while_other_sessions_are_answered(monkeypatch):
    begun, answered = threading.Event(), threading.Event()

    def parse(raw):
        begun.set()
        assert answered.wait(20)
        return raw

    monkeypatch.setattr(email, "parse_email", parse)
    emails = []
    app = whole(lambda ctx, message: emails.append(message.as_email()))
    app.filter.ehlo(lambda ctx, identity: None)
    with FakeSmtpd(app, received=False, timeout=30) as smtpd:
        reply = smtpd.start(in_transaction(smtpd).data, MESSAGE)
        until(begun.is_set)
        in_transaction(smtpd)
        answered.set()
        assert reply.get().ok
    assert emails == [MESSAGE]


NESTED = b"".join(
    b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(60)
)


def test_as_email_works_in_a_thread_and_in_a_thread_of_the_authors():
    names = []

    def handler(ctx, message):
        names.append(message.as_email()["subject"])
        pool = gevent.get_hub().threadpool
        names.append(pool.apply(lambda: message.as_email()["subject"]))

    assert send(whole(handler)).ok
    assert send(whole(lambda ctx, m: names.append(m.as_email()["subject"]), thread=True)).ok
    assert names == ["x", "x", "x"]


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize(
    ("read", "data", "text"),
    [
        (
            lambda message: message.headers,
            b"".join(b"X-%d: " % n + b"a" * 60_000 + b"\n" for n in range(18)),
            "the header block is above the limit of 1048576 bytes",
        ),
        (
            lambda message: message.as_email(),
            NESTED,
            "the message has parts within parts, more than 50",
        ),
    ],
)
def test_a_message_that_passes_a_limit_of_what_a_handler_reads_is_refused_for_good(
    thread, read, data, text, caplog
):
    def handler(ctx, message):
        read(message)

    assert send(whole(handler, thread=thread), data).lines == (f"552 5.3.4 {text}",)
    assert text in caplog.text
    assert send(whole(handler, on_error="proceed"), data).message == data.replace(b"\n", b"\r\n")
    refused = send(whole(handler, on_error=reject(554, "no")), data)
    assert refused.code == 554
