"""Events of a session in order and one at a time, and one answer to each request."""

from __future__ import annotations

import threading

import gevent
import gevent.event
import pytest

from greenfilter import Filter, Need, NeedError, SessionClosed, proceed, reject, rewrite
from greenfilter.testing import FakeSmtpd

from .driving import (
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
