"""What a handler that fails or does not end is answered with, and that its session goes on."""

from __future__ import annotations

import logging

import gevent
import gevent.event
import pytest
from greenlet import GreenletExit

from greenfilter import (
    Filter,
    HandlerTimeout,
    SessionClosed,
    disconnect,
    junk,
    proceed,
    reject,
    rewrite,
)
from greenfilter import report as tell
from greenfilter._filter.handlers import say_where_to_keep
from greenfilter._process.log import logger
from greenfilter._runtime.answers import Answers
from greenfilter._smtpd import wire
from greenfilter.protocol import Call, Phase, Session
from greenfilter.testing import FakeSmtpd

from .driving import (
    MESSAGE,
    TEMPFAIL,
    Output,
    Pipe,
    begin,
    greeted,
    in_transaction,
    report,
    request,
    until,
)

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


def with_sender(smtpd):
    session = greeted(smtpd)
    assert session.mail_from("alice@example.net").ok
    return session


PHASE_STEPS = {
    "connect": lambda smtpd: smtpd.connect().reply,
    "helo": lambda smtpd: smtpd.connect().helo("client.example.net"),
    "ehlo": lambda smtpd: smtpd.connect().ehlo("client.example.net"),
    "starttls": lambda smtpd: greeted(smtpd).starttls(),
    "mail_from": lambda smtpd: greeted(smtpd).mail_from("alice@example.net"),
    "rcpt_to": lambda smtpd: with_sender(smtpd).rcpt_to("carol@example.org"),
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
        raise ValueError(credentials, "no")

    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        session.starttls()
        session.ehlo("client.example.net")
        assert session.auth("alice", "sesame").code == 501
    assert "ValueError" in caplog.text
    assert "AGFsaWNlAHNlc2FtZQ" not in caplog.text


def test_errors_of_reports_that_carry_credentials_are_told_without_their_text(caplog):
    app = Filter("auth", on_error="proceed")
    caplog.set_level(logging.DEBUG)

    @app.filter.auth
    def auth(ctx, credentials):
        return rewrite("PLAIN AGJvYgBzZWNyZXQ=")

    @app.report.protocol_client
    def protocol_client(ctx, command):
        raise KeyError(command)

    @app.report.filter_response
    def filter_response(ctx, phase, response, parameter):
        raise KeyError(phase, parameter)

    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        session.starttls()
        session.ehlo("client.example.net")
        session.command("AUTH  PLAIN AGFsaWNlAHNlc2FtZQ==")
    assert "'ehlo', None" in caplog.text
    assert "AGFsaWNlAHNlc2FtZQ" not in caplog.text
    assert "AGJvYgBzZWNyZXQ" not in caplog.text


@pytest.mark.parametrize("kind", [reject, disconnect])
def test_the_reason_of_a_refused_auth_is_logged_without_the_password(caplog, kind):
    app = Filter("auth")
    caplog.set_level(logging.INFO)

    @app.filter.auth
    def auth(ctx, credentials):
        return kind(550, f"no: {credentials}" if credentials.endswith("Q==") else "not from here")

    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        session.starttls()
        session.ehlo("client.example.net")
        assert session.auth("alice", "sesame2").code == 501
        assert session.auth("alice", "sesame").code == 501
    assert "not from here" in caplog.text
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
        pipe.clock.advance(10.0)
        pipe.send(*(request("ehlo", number, "fine") for number in range(2, 9)))
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


def test_a_phase_that_nobody_knows_and_that_waits_too_long_is_let_pass():
    """It takes no other decision; the deadlines of all others are kept."""
    written = []
    answers = Answers(Output(written))
    line = b"filter|0.7|1.0|smtp-in|bogus|00000000deadbeef|0123456789abcdef|x"
    call = Call(Session(b"00000000deadbeef", True), Phase("bogus", (), frozenset()), line, 63)
    answers.guard.expect(call, 1.0, 0.0)
    answers.fail(call, None, HandlerTimeout("late"))
    assert written == [b"filter-result|00000000deadbeef|0123456789abcdef|proceed\n"]


def test_a_decision_that_the_release_of_smtpd_does_not_know_is_not_sent(monkeypatch, caplog):
    monkeypatch.setitem(wire._SERVERS, (0, 7), "7.5.0")
    app = Filter("tells")

    @app.filter.connect(on_error="proceed")
    def connect(ctx, rdns, address):
        return tell("seen")

    with FakeSmtpd(app) as smtpd:
        assert smtpd.connect().reply.code == 220
    assert "smtpd 7.6" in caplog.text


@pytest.mark.parametrize("returned", [ValueError("x"), "no decision"], ids=["raises", "illegal"])
def test_a_log_of_the_authors_that_hangs_keeps_no_answer(returned, monkeypatch):
    class Hanging(logging.Handler):
        def emit(self, record):
            gevent.event.Event().wait()

    app = Filter("hangs")

    @app.filter.noop
    def noop(ctx):
        if isinstance(returned, Exception):
            raise returned
        return returned

    monkeypatch.setattr(logger, "handlers", [Hanging()])
    with Pipe(app) as pipe:
        pipe.send(request("noop"))
        until(lambda: pipe.results() == [f"reject|{TEMPFAIL}"])
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("whose", "register"), [("session", "local_session"), ("tx", "local_message")]
)
def test_an_attribute_of_the_authors_own_is_refused_and_the_log_says_where_to_keep_it(
    caplog, whose, register
):
    app = Filter("own")

    @app.filter.rcpt_to
    def keep(ctx, recipient):
        getattr(ctx, whose).mine = 1

    with FakeSmtpd(app) as smtpd:
        session = smtpd.connect()
        session.ehlo("client.example.net")
        session.mail_from("alice@example.net")
        assert session.rcpt_to("bob@example.org").rejected(451)
    assert "has no attribute 'mine'; for an object of your own: " in caplog.text
    assert f"app.{register}(dict), then ctx.{whose}.local" in caplog.text


def test_the_error_itself_says_where_to_keep_it_and_says_so_once():
    error = AttributeError("'LiveSession' object has no attribute 'mine'")
    say_where_to_keep(error)
    say_where_to_keep(error)
    assert str(error) == (
        "'LiveSession' object has no attribute 'mine'; for an object of your own: "
        "app.local_session(dict), then ctx.session.local"
    )
