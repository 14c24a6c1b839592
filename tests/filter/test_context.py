"""``ctx``: what a handler learns of its event, and what it may not do with it."""

from __future__ import annotations

import logging

import pytest

import greenfilter
from greenfilter import DecisionError, Filter, reject
from greenfilter._filter.context import DEFERRED, Context
from greenfilter._runtime.answers import Answers
from greenfilter._runtime.calls import Calls
from greenfilter._runtime.dispatcher import Dispatcher
from greenfilter._runtime.runners import Runners
from greenfilter._runtime.sessions import LiveSession
from greenfilter.protocol import EVENTS, EVERYTHING, PHASES, Call, Session
from greenfilter.testing import FakeSmtpd
from tests.runtime.driving import Output

SID = b"7641df9771b4ed00"
TOKEN = b"1ef1c203cc576e5d"


def request(phase="mail-from", version="0.7", session=None):
    head = f"filter|{version}|1576146008.006099|smtp-in|{phase}|".encode()
    line = head + SID + b"|" + TOKEN + b"|a@example.net"
    session = session or Session(SID)
    return Context(Call(session, PHASES[phase.replace("-", "_")], line, len(line) - 13))


def report(event="tx-begin", incoming=True):
    line = f"report|0.6|1576146008.5|smtp-in|{event}|".encode() + SID + b"|0000abcd"
    return Context(Call(Session(SID, incoming), EVENTS[event.replace("-", "_")], line, 0))


def test_a_request_has_a_phase_and_no_event():
    ctx = request()
    assert (ctx.phase, ctx.event) == ("mail_from", None)
    assert ctx.version == (0, 7)
    assert ctx.time == 1576146008.006099
    assert ctx.incoming is True
    assert ctx.session.id == SID.decode()


def test_a_report_has_an_event_and_no_phase():
    ctx = report(incoming=False)
    assert (ctx.phase, ctx.event) == (None, "tx_begin")
    assert ctx.version == (0, 6)
    assert ctx.time == 1576146008.5
    assert ctx.incoming is False


def test_there_is_no_transaction_before_it_begins():
    ctx = request()
    assert ctx.tx is None
    ctx._call.session.add_report(b"report|0.7|1.0|smtp-in|tx-begin|" + SID + b"|0000abcd")
    assert ctx.tx.message_id == "0000abcd"


def test_a_deferred_context_keeps_the_transaction_of_its_event():
    ctx = request()
    assert ctx.defer() is DEFERRED
    ctx._call.session.add_report(b"report|0.7|1.0|smtp-in|tx-begin|" + SID + b"|0000abcd")
    assert ctx.session.tx is not None
    assert ctx.tx is None


def test_the_runtime_answers_and_says_whether_it_did():
    sent = []
    answers = Answers(Output(sent))
    runners = Runners(1, lambda: None, lambda: None)
    dispatcher = Dispatcher(Calls(Filter("reply"), answers, runners))
    ctx = request(session=LiveSession(dispatcher, SID, True, EVERYTHING))
    answers.guard.expect(ctx._call, 30.0, 0.0)
    assert ctx.reply(reject(550, "no")) is True
    assert ctx.reply() is False
    assert sent == [b"filter-result|" + SID + b"|" + TOKEN + b"|reject|550 no\n"]


@pytest.mark.parametrize("ctx", [report(), request("data-line")], ids=["report", "data-line"])
def test_only_a_request_that_takes_an_answer_can_be_deferred_or_answered(ctx):
    for call in (ctx.defer, ctx.reply):
        with pytest.raises(DecisionError):
            call()


def test_the_log_carries_the_session(caplog):
    caplog.set_level(logging.INFO)
    request().log.info("%s of %s", 1, 2, extra={"more": "x"})
    (record,) = caplog.records
    assert record.getMessage() == "1 of 2"
    assert record.session == SID.decode()
    assert record.more == "x"
    assert record.name == "greenfilter"


def test_handlers_of_every_kind_get_what_belongs_to_their_event():
    app, seen = Filter("kinds"), {}

    def note(name):
        def handler(ctx, *parameters):
            tx = ctx.tx.mail_from if ctx.tx is not None else None
            seen[name] = (ctx.phase, ctx.event, ctx.session.identity, tx)

        return handler

    app.filter.mail_from(note("mail_from"))
    app.filter.commit(note("commit"))
    app.report.tx_commit(note("tx_commit"))
    app.message(note("message"))
    app.tap(note("tap"))
    with FakeSmtpd(app) as smtpd:
        session = smtpd.connect()
        session.ehlo("client.example.net")
        session.mail_from("alice@example.net")
        session.rcpt_to("bob@example.org")
        assert session.data(b"Subject: x\n\none\n").ok
        assert session.quit().ok
    client, alice = "client.example.net", "alice@example.net"
    assert seen["mail_from"] == ("mail_from", None, client, None)
    assert seen["commit"] == ("commit", None, client, alice)
    assert seen["message"] == seen["tap"] == ("data_line", None, client, alice)
    assert seen["tx_commit"] == (None, "tx_commit", client, alice)


# What an editor offers, which is what the README documents


def offered(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def test_a_context_has_what_is_documented_and_nothing_else():
    state = {"phase", "event", "time", "version", "incoming", "session", "tx", "log"}
    assert offered(Context) == state | {"defer", "reply"}


def test_a_session_has_what_is_documented_and_nothing_else():
    fields = {"id", "src", "dst", "rdns", "fcrdns", "greeting", "identity", "method", "ciphers"}
    fields |= {"username", "authenticated", "closed", "incoming", "local", "tx"}
    assert offered(greenfilter.Session) == fields


def test_a_transaction_has_what_is_documented_and_nothing_else():
    fields = {"message_id", "mail_from", "rcpt_to", "envelope_ids", "local"}
    assert offered(greenfilter.Transaction) == fields


@pytest.mark.parametrize("kind", [Context, greenfilter.Session, greenfilter.Transaction])
def test_each_of_these_has_a_docstring(kind):
    assert kind.__doc__
    for name in offered(kind) - {"local"}:
        assert getattr(kind, name).__doc__, name


def test_the_session_of_all_events_of_a_session_is_one_object():
    session = Session(SID)
    assert request(session=session).session is request("rcpt-to", session=session).session


def test_an_object_of_your_own_can_be_put_into_local_and_nowhere_else():
    session = request().session
    session.local = {"mine": 1}
    assert session.local == {"mine": 1}
    with pytest.raises(AttributeError, match=r"'mine'; .*app.local_session\(dict\)"):
        session.mine = 1
    with pytest.raises(AttributeError):
        session.rdns = "mx.example.net"
