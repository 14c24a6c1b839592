"""``tap``: a reader beside everything else, for which commit waits."""

from __future__ import annotations

import gevent
import gevent.event
import pytest
from greenlet import GreenletExit

from greenfilter import Filter, HandlerTimeout, SessionClosed, disconnect, junk, proceed, reject
from greenfilter.testing import FakeSmtpd

from .driving import MESSAGE, TEMPFAIL, Pipe, begin, in_data, in_transaction, request, until


def tapped(function, **options):
    app = Filter("tapped")
    app.tap(**options)(function)
    return app


def send(app, data=MESSAGE):
    with FakeSmtpd(app, received=False) as smtpd:
        return in_transaction(smtpd).data(data)


def test_lines_are_echoed_at_once_however_slow_the_tap_is():
    gate, seen = gevent.event.Event(), []

    def handler(ctx, lines):
        gate.wait()
        seen.extend(lines)

    with Pipe(tapped(handler)) as pipe:
        pipe.send(request("data-line") + "one")
        until(lambda: pipe.data() == ["one"])
        pipe.send(request("data-line") + "..two", request("data-line") + ".")
        until(lambda: pipe.data() == ["one", "..two", "."])
        assert seen == []
        gate.set()
        until(lambda: seen == [b"one", b".two"])


def test_commit_waits_for_a_slow_tap():
    gate = gevent.event.Event()

    def handler(ctx, lines):
        for _ in lines:
            pass
        gate.wait()
        return reject(554, "found")

    with FakeSmtpd(tapped(handler)) as smtpd:
        pending = smtpd.start(in_transaction(smtpd).data, MESSAGE)
        until(lambda: any(b"|commit|" in line for _, line in smtpd.trace))
        smtpd.clock.advance(1.0)
        assert not pending.ready()
        gate.set()
        assert pending.get(timeout=5).lines == ("554 found",)


@pytest.mark.parametrize("decision", [None, proceed()], ids=repr)
def test_a_tap_that_lets_pass(decision):
    def handler(ctx, lines):
        assert b"\r\n".join([*lines, b""]) == MESSAGE
        return decision

    assert send(tapped(handler)).message == MESSAGE


@pytest.mark.parametrize("decision", [reject(554, "no"), disconnect(421, "bye")], ids=repr)
def test_a_decision_is_applied_at_commit(decision):
    def handler(ctx, lines):
        next(lines)
        return decision

    assert send(tapped(handler)).lines == (decision.value,)


@pytest.mark.parametrize("wrong", [junk(), "text", 7, b"line"], ids=repr)
def test_a_wrong_result_applies_the_policy(wrong):
    assert send(tapped(lambda ctx, lines: wrong)).lines == (TEMPFAIL,)
    assert send(tapped(lambda ctx, lines: wrong, on_error="proceed")).message == MESSAGE


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), SystemExit(), KeyboardInterrupt(), GreenletExit(), SessionClosed("x")],
    ids=repr,
)
@pytest.mark.parametrize("place", ["before", "midway", "after"])
def test_a_tap_that_fails_applies_the_policy(error, place, caplog):
    def handler(ctx, lines):
        if place == "before":
            raise error
        next(lines)
        if place == "midway":
            raise error
        list(lines)
        raise error

    assert send(tapped(handler)).lines == (TEMPFAIL,)
    assert send(tapped(handler, on_error="proceed")).message == MESSAGE
    assert "handler (tap, " in caplog.text


def test_the_first_refusal_of_several_taps_is_applied():
    app, gate = Filter("several"), gevent.event.Event()
    seen = []

    @app.tap
    def slow(ctx, lines):
        gate.wait()
        seen.append(list(lines))
        return reject(554, "slow")

    @app.tap
    def quick(ctx, lines):
        seen.append(list(lines))
        gate.set()
        return reject(554, "quick")

    @app.tap
    def quiet(ctx, lines):
        seen.append(list(lines))

    assert send(app).lines == ("554 quick",)
    assert seen == [[b"Subject: hello", b"", b"one", b"two"]] * 3


@pytest.mark.parametrize("mode", ["data_line", "lines", "message"])
def test_a_tap_reads_the_original_beside_every_kind_of_handler(mode):
    app, seen = Filter("beside"), []

    @app.tap
    def tap(ctx, lines):
        seen.extend(lines)

    if mode == "data_line":
        app.filter.data_line(lambda ctx, line: b"> " + line)
    elif mode == "lines":
        app.lines(lambda ctx, lines: (b"> " + line for line in lines))
    else:
        app.message(lambda ctx, message: b"> one\n> two\n")
    assert send(app, b"one\ntwo\n").message == b"> one\r\n> two\r\n"
    assert seen == [b"one", b"two"]


def test_the_commit_handler_is_called_when_the_tap_let_pass():
    app = tapped(lambda ctx, lines: None)
    app.filter.commit(lambda ctx: reject(550, "commit"))
    assert send(app).lines == ("550 commit",)


def test_waiting_for_the_client_takes_no_time_of_the_tap():
    seen = []
    app = tapped(lambda ctx, lines: seen.extend(lines), deadline=5.0)
    with FakeSmtpd(app, received=False) as smtpd:
        session = in_data(smtpd)
        for line in (b"one", b"two"):
            session.data_lines([line])
            smtpd.clock.advance(60.0)
        assert session.data_end().ok
    assert seen == [b"one", b"two"]


def test_a_late_tap_applies_the_policy():
    ends = []

    def handler(ctx, lines):
        list(lines)
        try:
            gevent.event.Event().wait()
        except HandlerTimeout:
            ends.append("late")
            raise

    with FakeSmtpd(tapped(handler, deadline=5.0)) as smtpd:
        pending = smtpd.start(in_transaction(smtpd).data, MESSAGE)
        smtpd.clock.advance(5.3)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
    assert ends == ["late"]


@pytest.mark.parametrize("commit_policy", ["proceed", None], ids=repr)
@pytest.mark.parametrize(
    ("policy", "answer"), [("tempfail", TEMPFAIL), (reject(554, "no"), "554 no"), ("proceed", "ok")]
)
def test_a_tap_that_is_late_in_all_applies_its_policy_and_not_commits(
    commit_policy, policy, answer
):
    gate = gevent.event.Event()

    def handler(ctx, lines):
        next(lines)
        gate.wait()  # as long as any single batch may take
        list(lines)
        gevent.event.Event().wait()

    app = tapped(handler, deadline=5.0, on_error=policy)
    if commit_policy is not None:
        app.filter.commit(deadline=5.0, on_error=commit_policy)(lambda ctx: None)
    with FakeSmtpd(app) as smtpd:
        session = in_data(smtpd)
        session.data_lines([b"one"])
        pending = smtpd.start(session.data_end)
        until(lambda: any(b"|commit|" in line for _, line in smtpd.trace))
        smtpd.clock.advance(3.0)
        gate.set()
        smtpd.clock.advance(3.0)
        reply = pending.get(timeout=5)
        assert reply.ok if answer == "ok" else reply.lines == (answer,)


def test_commit_does_not_wait_for_a_tap_that_does_not_end():
    gate = gevent.event.Event()

    def handler(ctx, lines):
        while not gate.is_set():
            try:
                gate.wait()
            except BaseException:
                continue

    app = tapped(handler, deadline=5.0)
    app.max_concurrency = 2
    with FakeSmtpd(app) as smtpd:
        session = in_transaction(smtpd)
        pending = smtpd.start(session.data, MESSAGE)
        smtpd.clock.advance(8.0)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
        assert session.mail_from("alice@example.net").ok
        gate.set()


def test_taps_that_wait_for_their_clients_take_no_room_of_others():
    app = tapped(lambda ctx, lines: list(lines) and None)
    app.max_concurrency = 1
    with Pipe(app) as pipe:
        count = 30
        for number in range(count):
            pipe.send(request("data-line", number) + "one")
        until(lambda: len(pipe.lines) == count)
        for number in range(count):
            pipe.send(request("data-line", number) + ".", request("commit", number))
        until(lambda: all(pipe.results(number) == ["proceed"] for number in range(count)))


def test_a_client_that_leaves_midway_ends_the_tap(caplog):
    got, ends = [], []

    def handler(ctx, lines):
        try:
            for line in lines:
                got.append(line)
        except SessionClosed:
            ends.append("closed")
            raise

    with FakeSmtpd(tapped(handler), received=False) as smtpd:
        session = in_data(smtpd)
        session.data_lines([b"one"])
        until(lambda: got == [b"one"])
        session.disconnect()
        until(lambda: ends == ["closed"])
    assert caplog.text == ""


def test_a_tap_that_blocks_can_be_ended_when_the_client_leaves():
    got, ends = [], []

    def handler(ctx, lines):
        got.append(next(lines))
        try:
            gevent.event.Event().wait()
        except SessionClosed:
            ends.append("closed")
            raise

    with FakeSmtpd(tapped(handler, cancel_on_close=True), received=False) as smtpd:
        session = in_data(smtpd)
        session.data_lines([b"one"])
        until(lambda: got == [b"one"])
        session.disconnect()
        until(lambda: ends == ["closed"])


def test_a_message_above_max_message_bytes_fails_the_tap_only():
    app = tapped(lambda ctx, lines: list(lines) and None, on_error="proceed")
    app.max_message_bytes = 1000
    assert send(app, b"x\n" * 2000).message == b"x\r\n" * 2000


def test_a_tap_makes_no_local_object_for_a_session_that_has_ended():
    app, made, deleted, read = Filter("storage", max_sessions=1), [], [], []
    app.local_session(lambda: made.append("session"), lambda local: deleted.append("session"))
    app.local_message(lambda: made.append("message"), lambda local: deleted.append("message"))

    @app.tap
    def handler(ctx, lines):
        read.append(ctx.session.id)
        list(lines)

    with Pipe(app) as pipe:
        # The second session puts an end to the first before the tap has begun.
        pipe.send(*begin(), request("data-line") + "one", request("data-line", 2) + ".")
        until(lambda: len(read) == 2)
    assert made == ["session", "message", "session"]
    assert deleted == ["message", "session", "session"]


def test_commit_does_not_wait_for_the_tap_of_a_message_that_has_not_ended():
    app, ends = Filter("cut short"), []

    @app.tap
    def tap(ctx, lines):
        try:
            list(lines)
        except SessionClosed:
            ends.append("cancelled")

    with Pipe(app) as pipe:
        pipe.send(request("data-line") + "one")
        until(lambda: pipe.data() == ["one"])
        pipe.send(request("commit"), request("noop"))
        until(lambda: pipe.results() == ["proceed", "proceed"])
        until(lambda: ends == ["cancelled"])


def test_commit_does_not_keep_the_tap_that_it_waits_for_from_beginning():
    app, seen = Filter("narrow", max_concurrency=1), []

    @app.tap
    def tap(ctx, lines):
        seen.extend(lines)

    with Pipe(app) as pipe:
        pipe.send(request("data-line") + "one", request("data-line") + ".", request("commit"))
        until(lambda: pipe.results() == ["proceed"])
        assert seen == [b"one"]
