"""Events of a session in order and one at a time, and one answer to each request."""

from __future__ import annotations

import logging
import threading

import gevent
import gevent.event
import pytest
from greenlet import GreenletExit

from greenfilter import (
    Filter,
    HandlerTimeout,
    NeedError,
    SessionClosed,
    disconnect,
    junk,
    proceed,
    reject,
    rewrite,
)
from greenfilter import Need
from greenfilter.testing import FakeSmtpd

from .driving import (
    MESSAGE,
    TEMPFAIL,
    Pipe,
    begin,
    greeted,
    in_transaction,
    link_connect,
    report,
    request,
    until,
)

# Order


def test_events_of_a_session_run_one_at_a_time_in_order():
    app = Filter("order")
    seen, gates = [], {name: gevent.event.Event() for name in ("connect", "ehlo", "reset")}

    def blocking(name):
        seen.append(f"{name} begins")
        gates[name].wait()
        seen.append(f"{name} ends")

    app.filter.connect(lambda ctx, rdns, address: blocking("connect"))
    app.filter.ehlo(lambda ctx, identity: blocking("ehlo"))
    app.report.tx_reset(lambda ctx, message_id: blocking("reset"))
    with Pipe(app) as pipe:
        pipe.send(
            request("connect", parameter="host|192.0.2.1"),
            request("ehlo", parameter="client"),
            report("tx-reset"),
        )
        until(lambda: seen == ["connect begins"])
        for index, name in enumerate(gates):
            gates[name].set()
            until(lambda length=2 * index + 2: len(seen) >= length)
        until(lambda: len(seen) == 6)
    assert seen == [f"{name} {what}" for name in gates for what in ("begins", "ends")]


def test_a_blocked_session_holds_up_no_other():
    app = Filter("one-blocks")
    gate = gevent.event.Event()

    @app.filter.ehlo
    def ehlo(ctx, identity):
        if identity == "slow.example.net":
            gate.wait()

    with FakeSmtpd(app) as smtpd:
        slow = smtpd.connect()
        pending = smtpd.start(slow.ehlo, "slow.example.net")
        for _ in range(20):
            assert greeted(smtpd).quit().ok
        assert not pending.ready()
        gate.set()
        assert pending.get(timeout=5).ok


def test_a_deferred_request_does_not_hold_back_what_follows():
    app = Filter("defer")
    kept, seen = [], []

    @app.filter.ehlo
    def ehlo(ctx, identity):
        kept.append(ctx)
        return ctx.defer()

    @app.report.tx_begin
    def begun(ctx, message_id):
        seen.append(message_id)

    with Pipe(app) as pipe:
        pipe.send(request("ehlo", parameter="client"), *begin())
        until(lambda: seen == ["0000abcd"])
        assert pipe.results() == []
        assert kept[0].reply(proceed()) is True
        until(lambda: pipe.results() == ["proceed"])


def test_thousands_of_sessions_can_be_blocked_at_once():
    app = Filter("many")
    gate, inside = gevent.event.Event(), []

    @app.filter.ehlo
    def ehlo(ctx, identity):
        inside.append(identity)
        gate.wait()

    with Pipe(app) as pipe:
        count = 5000
        pipe.send(*(request("ehlo", number, str(number)) for number in range(count)))
        until(lambda: len(inside) == count)
        assert pipe.lines == []
        gate.set()
        until(lambda: len(pipe.lines) == count)
        assert all(pipe.results(number) == ["proceed"] for number in range(0, count, 97))


def test_callbacks_above_max_concurrency_wait_and_all_are_answered():
    app = Filter("limit", max_concurrency=3)
    running, most, gate = set(), [0], gevent.event.Event()

    @app.filter.ehlo
    def ehlo(ctx, identity):
        running.add(identity)
        most[0] = max(most[0], len(running))
        gate.wait()
        running.remove(identity)

    with Pipe(app) as pipe:
        for number in range(500):
            pipe.send(request("ehlo", number, str(number)))
        until(lambda: len(running) == 3)
        gate.set()
        until(lambda: len(pipe.lines) == 500)
    assert most == [3]


# Answers from elsewhere


def deferring():
    app = Filter("deferring", deadline=30.0)
    kept = []

    @app.filter.mail_from
    def mail_from(ctx, sender):
        kept.append(ctx)
        return ctx.defer()

    return app, kept


def test_a_reply_from_another_greenlet_answers():
    app, kept = deferring()
    with FakeSmtpd(app) as smtpd:
        pending = smtpd.start(greeted(smtpd).mail_from, "alice@example.net")
        until(lambda: kept)
        assert gevent.spawn(kept[0].reply, reject(550, "no")).get(timeout=5) is True
        assert pending.get(timeout=5).lines == ("550 no",)


def test_a_reply_from_an_os_thread_answers():
    app, kept = deferring()
    with FakeSmtpd(app) as smtpd:
        pending = smtpd.start(greeted(smtpd).mail_from, "alice@example.net")
        until(lambda: kept)
        thread = threading.Thread(target=kept[0].reply, args=(reject(550, "no"),))
        thread.start()
        assert pending.get(timeout=5).lines == ("550 no",)
        thread.join()


def test_of_many_threads_that_reply_one_answers():
    app, kept = deferring()
    with FakeSmtpd(app) as smtpd:
        pending = smtpd.start(greeted(smtpd).mail_from, "alice@example.net")
        until(lambda: kept)
        answers, ready = [], threading.Barrier(8)

        def reply(code):
            ready.wait()
            answers.append(kept[0].reply(reject(code, "no")))

        threads = [threading.Thread(target=reply, args=(550 + n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 550 <= pending.get(timeout=5).code <= 557
    assert sorted(answers) == [False] * 7 + [True]


def test_a_second_reply_returns_false_and_changes_nothing():
    app, kept = deferring()
    with FakeSmtpd(app) as smtpd:
        pending = smtpd.start(greeted(smtpd).mail_from, "alice@example.net")
        until(lambda: kept)
        assert kept[0].reply(reject(550, "first")) is True
        assert kept[0].reply(reject(551, "second")) is False
        assert pending.get(timeout=5).lines == ("550 first",)


def test_a_reply_after_the_deadline_returns_false():
    app, kept = deferring()
    with FakeSmtpd(app) as smtpd:
        pending = smtpd.start(greeted(smtpd).mail_from, "alice@example.net")
        until(lambda: kept)
        smtpd.clock.advance(30.0)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
        assert kept[0].reply(proceed()) is False


def test_a_context_that_is_dropped_is_answered_at_its_deadline():
    app = Filter("drop", deadline=7.0)

    @app.filter.mail_from(on_error="proceed")
    def mail_from(ctx, sender):
        return ctx.defer()

    with FakeSmtpd(app) as smtpd:
        pending = smtpd.start(greeted(smtpd).mail_from, "alice@example.net")
        smtpd.clock.advance(6.5)
        assert not pending.ready()
        smtpd.clock.advance(0.6)
        assert pending.get(timeout=5).ok


def test_a_reply_before_the_handler_returns_is_the_answer():
    app = Filter("early")

    @app.filter.mail_from
    def mail_from(ctx, sender):
        assert ctx.reply(reject(550, "early")) is True
        assert ctx.reply(reject(550, "late")) is False

    with FakeSmtpd(app) as smtpd:
        assert greeted(smtpd).mail_from("alice@example.net").lines == ("550 early",)


def test_a_reply_after_the_client_left_is_harmless():
    app, kept = deferring()
    with Pipe(app) as pipe:
        pipe.send(request("mail-from", parameter="a@example.net"), report("link-disconnect"))
        until(lambda: kept and kept[0].session.closed)
        assert kept[0].reply(proceed()) is True
        assert kept[0].reply(proceed()) is False
        until(lambda: pipe.results() == ["proceed"])


@pytest.mark.parametrize(
    "decision", [rewrite("x@example.net"), "proceed", 250, object()], ids=lambda d: type(d).__name__
)
def test_an_illegal_reply_is_answered_by_policy(decision, caplog):
    app = Filter("illegal")
    kept = []

    @app.filter.data
    def data(ctx):
        kept.append(ctx)
        return ctx.defer()

    with FakeSmtpd(app) as smtpd:
        pending = smtpd.start(in_transaction(smtpd).data_begin)
        until(lambda: kept)
        assert kept[0].reply(decision) is True
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
    assert "data (filter.data, " in caplog.text


# State


def test_state_is_that_of_the_event_and_not_of_later_reports():
    app = Filter("state")
    gate, seen = gevent.event.Event(), []

    @app.filter.ehlo
    def ehlo(ctx, identity):
        gate.wait()
        seen.append((ctx.session.identity, ctx.tx))

    @app.report.tx_begin
    def begun(ctx, message_id):
        seen.append((ctx.session.identity, ctx.tx.message_id, ctx.tx.mail_from))

    with Pipe(app) as pipe:
        pipe.send(link_connect(), request("ehlo", parameter="client"))
        pipe.send(report("link-identify", 1, "EHLO", "client.example.net"), *begin())
        gevent.sleep(0)
        gate.set()
        until(lambda: len(seen) == 2)
    assert seen == [(None, None), ("client.example.net", "0000abcd", None)]


def test_closed_is_true_while_a_callback_of_the_session_runs():
    app = Filter("closed")
    contexts, states, gate = [], [], gevent.event.Event()

    @app.report.tx_begin
    def begun(ctx, message_id):
        contexts.append(ctx)
        states.append(ctx.session.closed)
        gate.wait()
        states.append(ctx.session.closed)

    with Pipe(app) as pipe:
        pipe.send(*begin())
        until(lambda: contexts)
        pipe.send(report("link-disconnect"))
        until(lambda: contexts[0].session.closed)
        gate.set()
        until(lambda: len(states) == 2)
    assert states == [False, True]


def test_a_deferred_context_keeps_its_transaction():
    app, kept = Filter("kept"), []

    @app.filter.rcpt_to
    def rcpt_to(ctx, recipient):
        kept.append(ctx)
        return ctx.defer()

    with Pipe(app) as pipe:
        pipe.send(*begin(), request("rcpt-to", parameter="c@example.org"))
        pipe.send(report("tx-reset", 1, "0000abcd"))
        until(lambda: kept and kept[0].session.tx is None)
        assert kept[0].tx.message_id == "0000abcd"


@pytest.mark.parametrize("cancel", [True, False])
def test_cancel_on_close_ends_a_callback_whose_client_left(cancel):
    app = Filter("cancel")
    ends, gate = [], gevent.event.Event()

    @app.report.tx_begin(cancel_on_close=cancel)
    def begun(ctx, message_id):
        try:
            ends.append("begins")
            gate.wait()
            ends.append("goes on")
        except SessionClosed:
            ends.append("cancelled")
            raise

    with Pipe(app) as pipe:
        pipe.send(*begin())
        until(lambda: ends == ["begins"])
        pipe.send(report("link-disconnect"))
        until(lambda: not pipe.runtime._connection.sessions)
        gevent.sleep(0)
        gate.set()
        until(lambda: len(ends) == 2)
    assert ends[1] == ("cancelled" if cancel else "goes on")


def test_a_field_outside_of_needs_raises(caplog):
    app = Filter("needs", needs=Need.RDNS)

    @app.filter.ehlo
    def ehlo(ctx, identity):
        assert ctx.session.rdns == "client.example.net"
        with pytest.raises(NeedError):
            _ = ctx.session.src

    with FakeSmtpd(app) as smtpd:
        assert smtpd.connect().ehlo("client.example.net").ok


# Errors


ERRORS = [
    ValueError("x"),
    KeyError("k"),
    SystemExit(1),
    KeyboardInterrupt(),
    GreenletExit(),
    RecursionError(),
    MemoryError(),
    StopIteration(),
    GeneratorExit(),
    SessionClosed("by hand"),
    HandlerTimeout("by hand"),
    BaseException("base"),
    gevent.Timeout(1),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_is_answered_by_policy_and_the_session_goes_on(error, caplog):
    app = Filter("raises")

    @app.filter.mail_from
    def mail_from(ctx, sender):
        raise error

    @app.report.link_identify
    def identified(ctx, method, identity):
        raise error

    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        assert session.mail_from("alice@example.net").lines == (TEMPFAIL,)
        assert session.mail_from("alice@example.net").lines == (TEMPFAIL,)
        assert session.quit().ok
    assert f"mail_from (filter.mail_from, {__file__}:" in caplog.text
    assert type(error).__name__ in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_an_error_that_cannot_be_shown_is_answered():
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    app = Filter("odd")

    @app.filter.ehlo
    def ehlo(ctx, identity):
        raise Odd

    with FakeSmtpd(app) as smtpd:
        assert smtpd.connect().ehlo("client.example.net").lines == (TEMPFAIL,)


def test_endless_recursion_is_answered():
    app = Filter("deep")

    @app.filter.ehlo
    def ehlo(ctx, identity):
        return ehlo(ctx, identity)

    with FakeSmtpd(app) as smtpd:
        assert smtpd.connect().ehlo("client.example.net").lines == (TEMPFAIL,)


@pytest.mark.parametrize(
    "value", ["proceed", 1, True, False, 0, "", [], b"proceed", proceed, Exception("returned")]
)
def test_a_result_that_is_no_decision_is_answered_by_policy(value, caplog):
    app = Filter("wrong", on_error=reject(550, "policy"))

    @app.filter.ehlo
    def ehlo(ctx, identity):
        return value

    with FakeSmtpd(app) as smtpd:
        assert smtpd.connect().ehlo("client.example.net").lines == ("550 policy",)
    assert "which is not a decision" in caplog.text


PHASE_STEPS = {
    "connect": lambda smtpd: smtpd.connect().reply,
    "helo": lambda smtpd: smtpd.connect().helo("client.example.net"),
    "ehlo": lambda smtpd: smtpd.connect().ehlo("client.example.net"),
    "starttls": lambda smtpd: greeted(smtpd).starttls(),
    "mail_from": lambda smtpd: greeted(smtpd).mail_from("alice@example.net"),
    "rcpt_to": lambda smtpd: in_transaction(smtpd).rcpt_to("carol@example.org"),
    "data": lambda smtpd: in_transaction(smtpd).data_begin(),
    "rset": lambda smtpd: greeted(smtpd).rset(),
    "noop": lambda smtpd: greeted(smtpd).noop(),
    "commit": lambda smtpd: in_transaction(smtpd).data(MESSAGE),
}


def failing(phase, on_error):
    app = Filter("policy")

    def handler(ctx, *parameters):
        raise ValueError("no")

    getattr(app.filter, phase)(on_error=on_error)(handler)
    return app


@pytest.mark.parametrize("phase", PHASE_STEPS)
def test_tempfail_is_the_answer_of_a_failed_handler(phase):
    with FakeSmtpd(failing(phase, "tempfail")) as smtpd:
        assert PHASE_STEPS[phase](smtpd).lines == (TEMPFAIL,)


@pytest.mark.parametrize("phase", PHASE_STEPS)
def test_proceed_as_policy_lets_pass(phase):
    with FakeSmtpd(failing(phase, "proceed")) as smtpd:
        assert PHASE_STEPS[phase](smtpd).ok


@pytest.mark.parametrize("phase", PHASE_STEPS)
def test_a_decision_as_policy_is_the_answer(phase):
    with FakeSmtpd(failing(phase, disconnect(421, "bye"))) as smtpd:
        assert PHASE_STEPS[phase](smtpd).lines == ("421 bye",)


@pytest.mark.parametrize("phase", [phase for phase in PHASE_STEPS if phase != "commit"])
def test_junk_as_policy_lets_pass(phase):
    with FakeSmtpd(failing(phase, "junk")) as smtpd:
        assert PHASE_STEPS[phase](smtpd).ok


def test_the_policy_of_the_filter_holds_where_it_is_legal():
    app = Filter("junk", on_error="junk")

    @app.filter.mail_from
    def mail_from(ctx, sender):
        raise ValueError

    @app.filter.commit
    def commit(ctx):
        raise ValueError

    with FakeSmtpd(app) as smtpd:
        session = in_transaction(smtpd)
        assert session.junk
        assert session.data(MESSAGE).lines == (TEMPFAIL,)


def test_an_auth_failure_never_shows_credentials(caplog):
    app = Filter("auth")
    caplog.set_level(logging.DEBUG)

    @app.filter.auth
    def auth(ctx, credentials):
        raise ValueError("no")

    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        session.starttls()
        session.ehlo("client.example.net")
        assert session.auth("alice", "sesame").lines == (TEMPFAIL,)
    assert "AGFsaWNlAHNlc2FtZQ" not in caplog.text


# Deadlines


def test_a_late_handler_gets_a_timeout_and_its_session_goes_on():
    app = Filter("late", deadline=30.0)
    ends = []

    @app.filter.ehlo(deadline=5.0)
    def ehlo(ctx, identity):
        try:
            gevent.event.Event().wait()
        except HandlerTimeout as error:
            ends.append(str(error))
            raise

    with FakeSmtpd(app) as smtpd:
        session = smtpd.connect()
        pending = smtpd.start(session.ehlo, "client.example.net")
        smtpd.clock.advance(4.5)
        assert not pending.ready()
        smtpd.clock.advance(0.6)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
        assert session.noop().ok
        assert session.quit().ok
    assert len(ends) == 1
    assert "passed its 5 s" in ends[0]


def test_each_late_handler_of_a_session_gets_a_timeout():
    app = Filter("late-again", deadline=5.0)
    ends = []

    def blocking(ctx, *parameters):
        try:
            gevent.event.Event().wait()
        except BaseException as error:
            ends.append(type(error))
            raise

    for name in ("tx_begin", "tx_mail", "tx_rcpt", "tx_reset"):
        getattr(app.report, name)(blocking)
    with Pipe(app) as pipe:
        pipe.send(*begin(), report("tx-reset", 1, "0000abcd"))
        pipe.clock.advance(21.0)
    assert ends == [HandlerTimeout] * 4


def test_a_handler_that_swallows_everything_is_left_behind(caplog):
    app = Filter("deaf", deadline=5.0)
    gate, ends = gevent.event.Event(), []

    @app.filter.ehlo
    def ehlo(ctx, identity):
        while not gate.is_set():
            try:
                gate.wait()
            except BaseException as error:
                ends.append(type(error))
        ends.append("ended")
        return reject(550, "late")

    with FakeSmtpd(app) as smtpd:
        session = smtpd.connect()
        pending = smtpd.start(session.ehlo, "client.example.net")
        smtpd.clock.advance(5.1)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
        pending = smtpd.start(session.helo, "client.example.net")
        smtpd.clock.advance(3.0)
        assert pending.get(timeout=5).ok
        assert ends == [HandlerTimeout, GreenletExit]
        gate.set()
        until(lambda: ends[-1] == "ended")
        assert session.quit().ok
    assert "its session goes on without it" in caplog.text


def test_handlers_left_behind_take_no_room_of_others():
    app = Filter("deaf", deadline=5.0, max_concurrency=2)
    gate = gevent.event.Event()

    @app.filter.ehlo
    def ehlo(ctx, identity):
        while identity == "deaf" and not gate.is_set():
            try:
                gate.wait()
            except BaseException:
                continue

    with Pipe(app) as pipe:
        pipe.send(*(request("ehlo", number, "deaf") for number in range(2)))
        pipe.send(*(request("ehlo", number, "fine") for number in range(2, 9)))
        pipe.clock.advance(10.0)
        until(lambda: len(pipe.lines) == 9)
        assert pipe.results(8) == ["proceed"]
        gate.set()


@pytest.mark.parametrize("name", ["tx_reset", "link_disconnect"])
def test_what_a_report_ends_is_ended_when_its_handler_does_not_end(name):
    app = Filter("deaf", deadline=5.0)
    deleted, gate = [], gevent.event.Event()
    app.local_session(list, lambda local: deleted.append("session"))
    app.local_message(list, lambda local: deleted.append("message"))

    def deaf(ctx, *parameters):
        while not gate.is_set():
            try:
                gate.wait()
            except BaseException:
                continue

    getattr(app.report, name)(deaf)
    with Pipe(app) as pipe:
        pipe.send(*begin(), report("tx-reset", 1, "0000abcd"), report("link-disconnect"))
        pipe.clock.advance(10.0)
        until(lambda: len(deleted) == 2)
        gate.set()
    assert deleted == ["message", "session"]


def test_a_report_has_a_deadline():
    app = Filter("report")
    ends = []

    @app.report.tx_begin(deadline=5.0)
    def begun(ctx, message_id):
        try:
            gevent.event.Event().wait()
        except HandlerTimeout:
            ends.append(message_id)
            raise

    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        assert session.mail_from("alice@example.net").ok
        pending = smtpd.start(session.rcpt_to, "bob@example.org")
        smtpd.clock.advance(5.1)
        assert pending.get(timeout=5).ok
        assert session.quit().ok
    assert len(ends) == 1


def test_time_in_the_queue_counts():
    app = Filter("queue", deadline=5.0)
    gate, called = gevent.event.Event(), []

    @app.report.link_identify(deadline=60.0)
    def identified(ctx, method, identity):
        gate.wait()

    @app.filter.mail_from
    def mail_from(ctx, sender):
        called.append(sender)

    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        pending = smtpd.start(session.mail_from, "alice@example.net")
        smtpd.clock.advance(5.3)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
        gate.set()
        assert session.quit().ok
    assert called == []


def test_a_late_result_is_dropped_and_told_once(caplog):
    app = Filter("late", deadline=5.0)

    @app.filter.mail_from
    def mail_from(ctx, sender):
        try:
            gevent.event.Event().wait()
        except HandlerTimeout:
            return reject(550, "too late")

    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        for _ in range(3):
            pending = smtpd.start(session.mail_from, "alice@example.net")
            smtpd.clock.advance(5.1)
            assert pending.get(timeout=5).lines == (TEMPFAIL,)
    assert caplog.text.count("answered a request that had been answered") == 1


def test_a_handler_that_junks_and_one_that_proceeds_both_answer():
    app = Filter("plain")
    app.filter.ehlo(lambda ctx, identity: proceed())
    app.filter.mail_from(lambda ctx, sender: junk())
    with FakeSmtpd(app) as smtpd:
        session = in_transaction(smtpd)
        assert session.junk


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7"])
def test_answers_are_legal_in_every_version(version):
    app = Filter("versions")
    app.filter.ehlo(lambda ctx, identity: None)
    app.filter.mail_from(lambda ctx, sender: ctx.defer() if ctx.reply(proceed()) else None)
    with FakeSmtpd(app, version=version) as smtpd:
        assert in_transaction(smtpd).data(MESSAGE).ok


def test_a_report_without_its_fields_is_skipped(caplog):
    app = Filter("broken")
    seen = []
    app.report.tx_mail(lambda ctx, *parameters: seen.append(parameters))
    with Pipe(app) as pipe:
        pipe.send(report("tx-mail"), report("tx-mail", 1, "0000abcd", "ok", "a@example.net"))
        until(lambda: seen)
    assert "skipped a report" in caplog.text
    assert len(seen) == 1
