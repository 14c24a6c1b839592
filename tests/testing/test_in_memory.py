"""FakeSmtpd against filters in this process."""

from __future__ import annotations

import gevent
import gevent.event
import pytest

from greenfilter import Filter, disconnect, junk, reject, rewrite
from greenfilter.testing import FakeSmtpd

from .driving import MESSAGE, in_transaction


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7"])
def test_decisions_of_an_app_reach_the_client(version):
    app = Filter("guard")

    @app.filter.ehlo
    def identify(ctx, identity):
        return rewrite("other.example.net")

    @app.filter.mail_from
    def sender(ctx, address):
        return junk()

    @app.filter.rcpt_to
    def recipient(ctx, address):
        return reject(550, "no such user", enhanced="5.1.1") if "carol" in address else None

    @app.filter.quit
    def leave(ctx):
        return disconnect(421, "bye")

    with FakeSmtpd(app, version=version) as smtpd:
        session = in_transaction(smtpd)
        assert session.rcpt_to("carol@example.org").lines == ("550 5.1.1 no such user",)
        message = session.data(MESSAGE).message
        assert message.startswith(b"X-Spam: Yes\r\nReceived: from other.example.net ")
        assert message.endswith(MESSAGE)
        assert session.quit().text == "bye"
    assert ("ehlo", "rewrite|other.example.net") in session.decisions


def test_an_app_edits_the_message():
    app = Filter("footer")

    @app.lines
    def footer(ctx, lines):
        yield from lines
        yield b".signed"

    with FakeSmtpd(app, received=False) as smtpd:
        assert in_transaction(smtpd).data(MESSAGE).message == MESSAGE + b".signed\r\n"


def test_an_app_may_block_while_other_sessions_go_on():
    app = Filter("slow")
    both = []

    @app.filter.connect
    def wait(ctx, rdns, address):
        both.append(rdns)
        while len(both) < 2:
            gevent.sleep(0.001)

    with FakeSmtpd(app) as smtpd:
        pending = [smtpd.start(smtpd.connect, rdns=f"{name}.example.net") for name in "ab"]
        assert [greenlet.get(timeout=10).reply.code for greenlet in pending] == [220, 220]


def test_reports_reach_an_app_before_the_block_ends():
    app = Filter("count")
    seen = []

    @app.report.link_disconnect
    def gone(ctx):
        seen.append(ctx.session.id)

    @app.report.tx_commit(outgoing=True)
    def sent(ctx, message_id, size):
        seen.append(message_id)

    with FakeSmtpd(app, subsystems=("smtp-in", "smtp-out")) as smtpd:
        session = smtpd.connect()
        session.disconnect()
        message_id = smtpd.connect_out().tx("a@example.net", "b@example.org")
    assert seen == [session.id, message_id]


def test_a_client_that_leaves_while_the_filter_thinks_is_seen_afterwards():
    app = Filter("thinking")
    asked, allowed, gone = gevent.event.Event(), gevent.event.Event(), []

    @app.filter.mail_from
    def think(ctx, address):
        asked.set()
        assert allowed.wait(10)

    @app.report.link_disconnect
    def left(ctx):
        gone.append(ctx.session.id)

    with FakeSmtpd(app) as smtpd:
        session = smtpd.connect()
        session.ehlo("client.example.net")
        pending = smtpd.start(session.mail_from, "alice@example.net")
        leaving = smtpd.start(session.disconnect)
        assert asked.wait(10)
        assert not session.closed
        assert gone == []
        allowed.set()
        assert pending.get(timeout=10).ok
        leaving.get(timeout=10)
    assert gone == [session.id]
