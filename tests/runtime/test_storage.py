"""Local objects are made once, and deleted once in every way that a session can end."""

from __future__ import annotations

import gevent
import gevent.event
import pytest

from greenfilter import Filter, HandlerTimeout, reject
from greenfilter.testing import FakeSmtpd

from .driving import (
    MESSAGE,
    Pipe,
    begin,
    greeted,
    in_data,
    in_transaction,
    link_connect,
    report,
    request,
    until,
)


class Counted:
    """A filter with both storages, and what was made and deleted."""

    def __init__(self, **options):
        self.app = Filter("counted", **options)
        self.made, self.deleted = [], []
        self.app.local_session(lambda: self._make("session"), self.deleted.append)
        self.app.local_message(lambda: self._make("message"), self.deleted.append)
        self.app.filter.ehlo(lambda ctx, identity: None)

    def _make(self, kind):
        self.made.append(f"{kind} {len(self.made)}")
        return self.made[-1]

    def all_deleted(self):
        return sorted(self.made) == sorted(self.deleted)


def leave_by_quit(session):
    session.quit()


def leave_by_disconnect(session):
    session.disconnect()


def leave_by_timeout(session):
    session.timeout()


ENDS = [leave_by_quit, leave_by_disconnect, leave_by_timeout]


@pytest.mark.parametrize("leave", ENDS)
def test_objects_are_deleted_when_a_client_leaves_in_a_transaction(leave):
    counted = Counted()
    with FakeSmtpd(counted.app) as smtpd:
        leave(in_transaction(smtpd))
        until(lambda: len(counted.deleted) == 2)
    assert counted.made == ["session 0", "message 1"]
    assert counted.deleted == ["message 1", "session 0"]


@pytest.mark.parametrize("leave", ENDS[1:])
def test_objects_are_deleted_when_a_client_leaves_in_a_message(leave):
    counted = Counted()
    counted.app.lines(lambda ctx, lines: (line for line in lines))
    with FakeSmtpd(counted.app) as smtpd:
        session = in_data(smtpd)
        session.data_lines([b"one"])
        leave(session)
        until(lambda: len(counted.deleted) == 2)
    assert counted.all_deleted()


@pytest.mark.parametrize("outcome", ["commit", "rset", "refused"])
def test_the_object_of_a_message_is_deleted_with_its_transaction(outcome):
    counted = Counted()
    if outcome == "refused":
        counted.app.filter.commit(lambda ctx: reject(550, "no"))
    with FakeSmtpd(counted.app) as smtpd:
        session = in_transaction(smtpd)
        session.rset() if outcome == "rset" else session.data(MESSAGE)
        until(lambda: counted.deleted == ["message 1"])
        assert session.mail_from("alice@example.net").ok
        until(lambda: counted.made[-1] == "message 2")
        assert session.quit().ok
        until(counted.all_deleted)


def test_a_second_tx_begin_without_reset_ends_the_first_transaction():
    counted = Counted()
    with Pipe(counted.app) as pipe:
        pipe.send(link_connect(), *begin(), *begin(1, "0000beef"), report("link-disconnect"))
        until(lambda: len(counted.deleted) == 3)
    assert counted.deleted == ["message 1", "message 2", "session 0"]


def test_a_second_tx_reset_deletes_nothing_twice():
    counted = Counted()
    with Pipe(counted.app) as pipe:
        pipe.send(*begin(), report("tx-reset", 1, "0000abcd"), report("tx-reset", 1, "0000abcd"))
        pipe.send(report("link-disconnect"), report("link-disconnect"))
        until(lambda: len(counted.deleted) == 3)
    assert counted.all_deleted()


def test_objects_are_deleted_at_shutdown():
    counted = Counted()
    with FakeSmtpd(counted.app) as smtpd:
        in_transaction(smtpd)
        greeted(smtpd)
    assert len(counted.made) == 3
    assert counted.all_deleted()


def test_objects_are_deleted_when_there_are_too_many_sessions():
    counted = Counted(max_sessions=2)
    with Pipe(counted.app) as pipe:
        pipe.send(*(link_connect(number) for number in range(5)))
        until(lambda: len(counted.deleted) == 3)
        assert counted.deleted == ["session 0", "session 1", "session 2"]
    assert counted.all_deleted()


def test_objects_are_deleted_when_smtpd_has_forgotten_a_session(caplog):
    counted = Counted(deadline=30.0)
    with Pipe(counted.app) as pipe:
        pipe.send(link_connect(1), link_connect(2))
        until(lambda: len(counted.made) == 2)
        for _ in range(30):
            pipe.send(report("protocol-client", 2, "NOOP"))
            pipe.clock.advance(20.0)
        assert counted.deleted == ["session 0"]
        assert list(pipe.runtime._connection.sessions) == [b"%016x" % 2]
        pipe.clock.advance(1000.0)
        assert not pipe.runtime._connection.sessions
        assert counted.all_deleted()
        pipe.send(report("link-disconnect", 1))
    assert "smtpd said nothing of this session for long" in caplog.text
    assert counted.all_deleted()


def test_a_session_whose_client_sends_a_long_message_is_kept_for_a_day():
    counted = Counted(deadline=30.0)
    with Pipe(counted.app) as pipe:
        pipe.send(link_connect(), *begin())
        until(lambda: len(counted.made) == 2)
        for _ in range(420):
            pipe.clock.advance(200.0)
        assert counted.deleted == []
        for _ in range(20):
            pipe.clock.advance(200.0)
        until(lambda: counted.all_deleted())


def test_an_event_of_a_forgotten_session_begins_a_new_one():
    counted = Counted()
    with Pipe(counted.app) as pipe:
        pipe.send(link_connect())
        until(lambda: counted.made)
        pipe.clock.advance(2000.0)
        assert counted.all_deleted()
        pipe.send(request("ehlo", parameter="again"))
        until(lambda: pipe.results() == ["proceed"])
        assert counted.made == ["session 0", "session 1"]
    assert counted.all_deleted()


def test_a_session_that_disconnects_late_is_not_let_go_again(caplog):
    counted = Counted()
    with Pipe(counted.app) as pipe:
        pipe.send(link_connect())
        until(lambda: counted.made)
        pipe.clock.advance(300.0)
        pipe.send(report("link-disconnect"))
        until(lambda: counted.all_deleted())
        pipe.clock.advance(2000.0)
    assert counted.made == ["session 0"]
    assert counted.deleted == ["session 0"]
    assert caplog.text == ""


def test_hooks_get_the_context_where_they_take_it():
    app, seen = Filter("context"), []
    app.local_session(lambda ctx: ctx.session.id, lambda ctx, local: seen.append((ctx, local)))
    app.local_message(lambda ctx: ctx.tx.message_id, lambda ctx, local: seen.append((ctx, local)))
    with FakeSmtpd(app) as smtpd:
        session = in_transaction(smtpd)
        assert session.quit().ok
        until(lambda: len(seen) == 2)
    assert seen[0][0].event == "tx_reset"
    assert seen[1][1] == session.id == seen[1][0].session.id


def test_objects_are_there_in_handlers_until_their_end():
    app, seen = Filter("there"), []
    app.local_session(dict)
    app.local_message(list)

    @app.filter.mail_from
    def mail_from(ctx, sender):
        ctx.session.local["sender"] = sender

    @app.report.tx_rcpt
    def rcpt(ctx, message_id, result, recipient):
        ctx.tx.local.append(recipient)

    @app.report.tx_reset
    def reset(ctx, message_id):
        seen.append(ctx.tx.local)

    @app.report.link_disconnect
    def gone(ctx):
        seen.append(ctx.session.local)

    with FakeSmtpd(app) as smtpd:
        session = in_transaction(smtpd)
        assert session.data(MESSAGE).ok
        assert session.quit().ok
        until(lambda: len(seen) == 2)
    assert seen == [["bob@example.org"], {"sender": "alice@example.net"}]


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(), KeyboardInterrupt()], ids=repr)
def test_hooks_that_raise_stop_nothing(error, caplog):
    app = Filter("raising")

    def fail(*_):
        raise error

    app.local_session(list, lambda local: fail())
    app.local_message(fail, lambda local: fail())
    app.filter.ehlo(lambda ctx, identity: reject(550, "no") if ctx.session.local else None)
    with FakeSmtpd(app) as smtpd:
        session = in_transaction(smtpd)
        assert session.data(MESSAGE).ok
        assert session.quit().ok
        until(lambda: "local_session delete" in caplog.text)
    assert caplog.text.count("(local_message, ") == 1


def test_what_could_not_be_made_is_not_deleted(caplog):
    app, deleted = Filter("failing"), []
    app.local_session(lambda: 1 / 0, deleted.append)
    app.report.link_disconnect(lambda ctx: deleted.append("after it"))
    with FakeSmtpd(app) as smtpd:
        assert smtpd.connect().quit().ok
        until(lambda: deleted)
    assert deleted == ["after it"]
    assert caplog.text.count("(local_session, ") == 1


def test_a_hook_that_blocks_gets_a_timeout_and_the_session_goes_on():
    app, ends = Filter("blocking", deadline=5.0), []

    def block(*_):
        try:
            gevent.event.Event().wait()
        except HandlerTimeout:
            ends.append("late")
            raise

    app.local_session(list, lambda local: block())
    app.local_message(lambda: block())
    app.filter.ehlo(deadline=30.0)(lambda ctx, identity: None)
    with FakeSmtpd(app) as smtpd:
        session = smtpd.connect()
        assert session.ehlo("client.example.net").ok
        pending = smtpd.start(session.mail_from, "alice@example.net")
        smtpd.clock.advance(5.3)
        assert pending.get(timeout=5).ok
        assert session.quit().ok
        smtpd.clock.advance(5.3)
        until(lambda: len(ends) == 2)


def test_a_hook_that_does_not_end_is_left_behind():
    app, gate = Filter("deaf", deadline=5.0), gevent.event.Event()
    workers, calls, deleted = [], [], []

    def deaf():
        workers.append(gevent.getcurrent())
        while not gate.is_set():
            try:
                gate.wait()
            except BaseException:
                continue
        return "late"

    app.local_session(deaf, deleted.append)
    app.filter.ehlo(lambda ctx, identity: calls.append(identity))
    with Pipe(app) as pipe:
        pipe.send(request("ehlo", parameter="first"))
        pipe.clock.advance(10.0)
        pipe.send(request("ehlo", parameter="second"))
        until(lambda: len(pipe.results()) == 2)
        pipe.send(report("link-disconnect"))
        until(lambda: not pipe.runtime._connection.sessions)
        assert deleted == []
        gate.set()
        until(lambda: workers[0].dead)
    assert calls == ["second"]
    assert deleted == ["late"]


def test_outgoing_sessions_have_objects_too():
    app, deleted = Filter("out"), []
    app.local_session(list, lambda local: deleted.append("session"))
    app.local_message(list, lambda local: deleted.append("message"))
    app.report.tx_rcpt(outgoing=True)(lambda ctx, *_: ctx.tx.local.append(1))
    with Pipe(app) as pipe:
        events = [*begin(), report("tx-reset", 1, "0000abcd"), report("link-disconnect")]
        pipe.send(*(event.replace("smtp-in", "smtp-out") for event in events))
        until(lambda: len(deleted) == 2)
    assert deleted == ["message", "session"]
