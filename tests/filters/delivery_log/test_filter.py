"""The filter in front of FakeSmtpd: one record for each recipient, whatever becomes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from greenfilter import disconnect, reject, rewrite
from greenfilter.filters import delivery_log
from greenfilter.testing import FakeSmtpd
from tests.filters.support import begin, deliver, log_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Log:
    """The file that the filter writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def records(self) -> list[dict[str, Any]]:
        """Give the records that came since the last call."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        new, self._read = lines[self._read :], len(lines)
        return [json.loads(line) for line in new]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "mail.json")


@pytest.fixture
def start(store_url: str, log: Log, caplog: pytest.LogCaptureFixture) -> Callable[..., FakeSmtpd]:
    """Make a FakeSmtpd in front of the filter, and of what else is to refuse or rewrite."""
    log_all(caplog)

    def make(*options: str, prepare: Callable[..., None] | None = None, **more) -> FakeSmtpd:
        app = delivery_log.build(["--store", store_url, "--output", str(log.path), *options])
        if prepare is not None:
            prepare(app)
        return FakeSmtpd(app, subsystems=("smtp-in", "smtp-out"), **more)

    return make


VERSIONS = pytest.mark.parametrize("version", ["0.6", "0.7"])


@VERSIONS
def test_each_accepted_recipient_has_a_record_with_the_facts(start, log, version):
    with start(version=version) as smtpd:
        assert deliver(smtpd, recipients="bob@example.org Carol@Example.com", user="al ice").ok
        [message] = smtpd.messages
        smtpd.settle()
    bob, carol = log.records()
    assert bob.pop("time").endswith("Z")
    assert bob.pop("reply").startswith("250 ")
    assert bob.pop("size") > 0
    assert len(bob.pop("session")) == 16
    bob_id = bob.pop("envelope_id")
    assert bob_id.startswith(message.message_id)
    assert bob.pop("tls").startswith("TLSv1.3")
    assert bob == {
        "event": "accepted",
        "message_id": message.message_id,
        "client": "192.0.2.10",
        "client_name": "client.example.net",
        "listener": "192.0.2.25:25",
        "helo": "client.example.net",
        "user": "al ice",
        "mail_from": "alice@example.net",
        "mail_from_before": "alice@example.net",
        "rcpt_to": "bob@example.org",
        "rcpt_to_before": "bob@example.org",
    }
    assert carol["rcpt_to"] == "Carol@Example.com"
    assert carol["envelope_id"] != bob_id
    assert carol["message_id"] == message.message_id


def test_addresses_after_and_before_rewrites(start, log):
    def prepare(app) -> None:
        app.filter.mail_from(lambda ctx, sender: rewrite("<srs=alice@example.org>"))
        app.filter.rcpt_to(lambda ctx, to: rewrite("<bob@inside.example>") if "b+" in to else None)

    with start(prepare=prepare) as smtpd:
        assert deliver(smtpd, recipients="b+x@example.org carol@example.org").ok
        smtpd.settle()
        bob, carol = log.records()
        assert (bob["rcpt_to"], bob["rcpt_to_before"]) == ("bob@inside.example", "b+x@example.org")
        assert carol["rcpt_to"] == carol["rcpt_to_before"] == "carol@example.org"
        assert (bob["mail_from"], bob["mail_from_before"]) == (
            "srs=alice@example.org",
            "alice@example.net",
        )
        out = smtpd.connect_out()
        out.identify()
        out.tx(
            "srs=alice@example.org",
            ["bob@inside.example", "carol@example.org"],
            message_id=bob["message_id"],
        )
        smtpd.settle()
    records = log.records()
    assert [each["event"] for each in records] == ["delivered"] * 2
    assert [each["rcpt_to_before"] for each in records] == ["b+x@example.org", "carol@example.org"]
    assert records[0]["mail_from_before"] == "alice@example.net"


@VERSIONS
def test_refused_recipients_with_reply_and_by_whom(start, log, version):
    def prepare(app) -> None:
        @app.filter.rcpt_to
        def refuse(ctx, recipient):
            return reject(450, "later", enhanced="4.7.1") if "later" in recipient else None

    with start(prepare=prepare, version=version) as smtpd:
        session = begin(smtpd)
        session.rcpt_to("later@example.org")
        session.rcpt_to("nobody@example.org", result="permfail")
        session.rcpt_to("bob@example.org")
        session.data(b"Subject: x\n\n")
        session.quit()
        smtpd.settle()
    later, nobody, bob = log.records()
    assert (later["event"], later["phase"], later["by"]) == ("refused", "rcpt-to", "filter")
    assert later["reply"] == "450 4.7.1 later"
    assert later["rcpt_to"] == "later@example.org"
    assert (nobody["event"], nobody["by"]) == ("refused", "smtpd")
    assert nobody["reply"].startswith("550 ")
    assert (bob["event"], bob["rcpt_to"]) == ("accepted", "bob@example.org")


@pytest.mark.parametrize("phase", ["data", "commit"])
def test_a_refused_message_has_a_record_for_each_recipient(start, log, phase):
    def prepare(app) -> None:
        getattr(app.filter, phase)(lambda ctx: reject(554, "no spam", enhanced="5.7.1"))

    with start(prepare=prepare) as smtpd:
        assert deliver(smtpd, recipients="a@example.org b@example.org").rejected(554)
        smtpd.settle()
    records = log.records()
    assert [each["rcpt_to"] for each in records] == ["a@example.org", "b@example.org"]
    for record in records:
        assert (record["event"], record["phase"], record["by"]) == ("refused", phase, "filter")
        assert record["reply"] == "554 5.7.1 no spam"


def test_who_is_refused_earlier_has_a_record_without_recipient(start, log):
    def prepare(app) -> None:
        @app.filter.connect
        def refuse(ctx, rdns, address):
            return disconnect(550, "listed") if str(address) == "192.0.2.66" else None

        app.filter.ehlo(lambda ctx, name: reject(550, "bad name") if "bad" in name else None)
        app.filter.mail_from(lambda ctx, sender: reject(550, "not you"))

    with start(prepare=prepare) as smtpd:
        smtpd.connect(src="192.0.2.66:1")
        smtpd.connect().ehlo("bad.example")
        session = smtpd.connect()
        session.ehlo("good.example")
        session.mail_from("eve@example.net")
        session.quit()
        smtpd.settle()
    connect, ehlo, mail = log.records()
    assert [each["phase"] for each in (connect, ehlo, mail)] == ["connect", "ehlo", "mail-from"]
    assert all(each["event"] == "refused" and "rcpt_to" not in each for each in (connect, mail))
    assert connect["client"] == "192.0.2.66"
    assert connect["reply"] == "550 listed"
    assert mail["mail_from"] == "eve@example.net"
    assert mail["helo"] == "good.example"


@pytest.mark.parametrize(
    ("how", "reason"),
    [("rset", "rset"), ("quit", "quit"), ("disconnect", "disconnect"), ("timeout", "timeout")],
)
def test_a_message_that_is_given_up_is_aborted(start, log, how, reason):
    with start() as smtpd:
        session = begin(smtpd)
        session.rcpt_to("bob@example.org")
        getattr(session, how)()
        smtpd.settle()
    [record] = log.records()
    assert (record["event"], record["reason"]) == ("aborted", reason)
    assert record["rcpt_to"] == "bob@example.org"


def test_a_session_without_mail_and_a_failed_login_have_no_record(start, log):
    with start() as smtpd:
        smtpd.connect().quit()
        session = smtpd.connect()
        session.ehlo("client.example.net")
        session.starttls()
        session.ehlo("client.example.net")
        assert session.auth("alice", "wrong", ok=False).rejected()
        session.command("NONSENSE")
        session.quit()
        smtpd.settle()
    assert log.records() == []


def test_later_messages_of_a_session_know_nothing_of_earlier_ones(start, log):
    with start() as smtpd:
        session = begin(smtpd)
        session.rcpt_to("a@example.org")
        session.rset()
        session.mail_from("carol@example.net")
        session.rcpt_to("b@example.org")
        session.data(b"Subject: x\n\n")
        session.mail_from("dave@example.net")
        session.rcpt_to("c@example.org")
        session.data(b"Subject: x\n\n")
        session.quit()
        smtpd.settle()
    told = [(r["event"], r["mail_from_before"], r["rcpt_to_before"]) for r in log.records()]
    assert told == [
        ("aborted", "alice@example.net", "a@example.org"),
        ("accepted", "carol@example.net", "b@example.org"),
        ("accepted", "dave@example.net", "c@example.org"),
    ]


def accepted(smtpd: FakeSmtpd, log: Log, recipients: str) -> str:
    """Have a message accepted; give its id."""
    assert deliver(smtpd, recipients=recipients, user="alice").ok
    smtpd.settle()
    log.records()
    return smtpd.messages[-1].message_id


@VERSIONS
def test_what_is_relayed_is_joined_with_what_came_in(start, log, version):
    with start(version=version) as smtpd:
        message_id = accepted(smtpd, log, "bob@example.com")
    # Days later, with another worker:
    with start(version=version) as smtpd:
        out = smtpd.connect_out()
        out.identify()
        out.tx("alice@example.net", "bob@example.com", message_id=message_id)
        smtpd.settle()
    [record] = log.records()
    assert record["event"] == "delivered"
    assert record["joined"] is True
    assert record["message_id"] == message_id
    assert record["relay"] == "192.0.2.80:25"
    assert record["relay_name"] == "mx.example.com"
    assert record["reply"].startswith("250 ")
    assert record["client"] == "192.0.2.10"
    assert record["user"] == "alice"
    assert record["accepted"] <= record["time"]
    assert record["rcpt_to"] == record["rcpt_to_before"] == "bob@example.com"


@pytest.mark.parametrize("phase", ["rcpt-to", "data", "commit"])
def test_what_another_server_refuses_bounces_with_phase_and_reply(start, log, phase):
    with start() as smtpd:
        message_id = accepted(smtpd, log, "a@example.com b@example.com")
        out = smtpd.connect_out()
        out.identify()
        rcpts = ["a@example.com", "b@example.com"]
        out.tx("alice@example.net", rcpts, refused=phase, message_id=message_id)
        smtpd.settle()
    events = [(each["event"], each["rcpt_to"], each.get("phase")) for each in log.records()]
    if phase == "rcpt-to":
        assert events == [
            ("bounced", "a@example.com", "rcpt-to"),
            ("delivered", "b@example.com", None),
        ]
    else:
        assert events == [("bounced", rcpt, phase) for rcpt in rcpts]


def test_a_refused_sender_has_a_record_without_message(start, log):
    with start() as smtpd:
        out = smtpd.connect_out()
        out.identify()
        out.tx("alice@example.net", "b@example.com", refused="mail-from")
        smtpd.settle()
    [record] = log.records()
    assert (record["event"], record["phase"]) == ("bounced", "mail-from")
    assert record["mail_from"] == "alice@example.net"
    assert "message_id" not in record
    assert record["joined"] is False


OUT = """\
report|0.7|1.0|smtp-out|link-connect|{s}|mx.example.com|pass|192.0.2.25:1|192.0.2.80:25
report|0.7|1.0|smtp-out|protocol-client|{s}|MAIL FROM:<alice@example.net>
report|0.7|1.0|smtp-out|protocol-server|{s}|250 ok
report|0.7|1.0|smtp-out|tx-begin|{s}|{m}
report|0.7|1.0|smtp-out|tx-mail|{s}|{m}|ok|alice@example.net
report|0.7|1.0|smtp-out|protocol-client|{s}|RCPT TO:<a@example.com>
report|0.7|1.0|smtp-out|tx-envelope|{s}|{m}|{m}00000001
report|0.7|1.0|smtp-out|protocol-server|{s}|250 ok
report|0.7|1.0|smtp-out|tx-rcpt|{s}|{m}|ok|a@example.com
"""
LATER = """\
report|0.7|1.0|smtp-out|protocol-client|{s}|RCPT TO:<b@example.com>
report|0.7|1.0|smtp-out|tx-envelope|{s}|{m}|{m}00000002
report|0.7|1.0|smtp-out|protocol-server|{s}|451-4.7.1 come
report|0.7|1.0|smtp-out|protocol-server|{s}|451 4.7.1 later
report|0.7|1.0|smtp-out|tx-rcpt|{s}|{m}|tempfail|b@example.com
report|0.7|1.0|smtp-out|tx-rollback|{s}|{m}
report|0.7|1.0|smtp-out|tx-reset|{s}|{m}
"""
SENT = """\
report|0.7|1.0|smtp-out|protocol-client|{s}|DATA
report|0.7|1.0|smtp-out|protocol-server|{s}|354 go
report|0.7|1.0|smtp-out|tx-data|{s}|{m}|ok
report|0.7|1.0|smtp-out|protocol-client|{s}|.
report|0.7|1.0|smtp-out|protocol-server|{s}|250 2.0.0 taken
report|0.7|1.0|smtp-out|tx-commit|{s}|{m}|700
report|0.7|1.0|smtp-out|tx-reset|{s}|{m}
"""
LOST = """\
report|0.7|1.0|smtp-out|protocol-client|{s}|DATA
report|0.7|1.0|smtp-out|link-disconnect|{s}
"""


def say(smtpd: FakeSmtpd, *parts: str) -> None:
    text = "".join(parts).format(s="00000000000000aa", m="0123abcd")
    smtpd.send_raw(text.encode())
    smtpd.settle()


def test_a_recipient_that_is_refused_after_another_defers_that_one_alone(start, log):
    with start() as smtpd:
        say(smtpd, OUT, LATER, SENT)
    later, sent = log.records()
    assert (later["event"], later["rcpt_to"]) == ("deferred", "b@example.com")
    assert later["reply"] == "451 4.7.1 come 4.7.1 later"
    assert later["envelope_id"] == "0123abcd00000002"
    assert (sent["event"], sent["rcpt_to"]) == ("delivered", "a@example.com")
    assert (sent["reply"], sent["envelope_id"]) == ("250 2.0.0 taken", "0123abcd00000001")


def test_a_connection_that_is_lost_defers_what_was_open(start, log):
    with start() as smtpd:
        say(smtpd, OUT, LOST)
    [record] = log.records()
    assert (record["event"], record["rcpt_to"]) == ("deferred", "a@example.com")
    assert (record["phase"], record["reply"]) == ("data", "the connection was lost")


def test_a_complaint_after_an_accepted_recipient_is_no_refusal(start, log):
    """What smtpd 7.8 says of a client that sends commands too early."""
    head = "report|0.7|1.0|smtp-in|{event}|00000000000000bb|{rest}\n"
    events = [
        ("link-connect", "c.example|pass|192.0.2.10:1|192.0.2.25:25"),
        ("protocol-client", "MAIL FROM:<a@example.net>"),
        ("protocol-server", "250 2.0.0 Ok"),
        ("tx-begin", "0123abcd"),
        ("tx-mail", "0123abcd|ok|a@example.net"),
        ("protocol-client", "RCPT TO:<b@example.org>"),
        ("tx-envelope", "0123abcd|0123abcd00000001"),
        ("protocol-server", "250 2.1.5 ok"),
        ("tx-rcpt", "0123abcd|ok|b@example.org"),
        ("protocol-server", "500 5.0.0 Pipelining not supported"),
        ("tx-rcpt", "0123abcd|permfail|b@example.org"),
        ("tx-rollback", "0123abcd"),
        ("tx-reset", "0123abcd"),
    ]
    with start() as smtpd:
        for event, rest in events:
            smtpd.send_raw(head.format(event=event, rest=rest).encode())
        smtpd.settle()
    [record] = log.records()
    assert (record["event"], record["reason"]) == ("aborted", "disconnect")


def test_an_alias_is_known_by_its_envelope_or_as_the_only_recipient(start, log):
    with start() as smtpd:
        message_id = accepted(smtpd, log, "staff@example.org")
        out = smtpd.connect_out()
        out.identify()
        out.tx("alice@example.net", "carol@elsewhere.example", message_id=message_id)
        smtpd.settle()
    [record] = log.records()
    assert record["rcpt_to"] == "carol@elsewhere.example"
    assert record["rcpt_to_before"] == "staff@example.org"


def test_only_the_events_that_are_wanted(start, log):
    with start("--only", "refused", "--only", "bounced") as smtpd:
        session = begin(smtpd)
        session.rcpt_to("nobody@example.org", result="permfail")
        session.rcpt_to("bob@example.org")
        session.data(b"Subject: x\n\n")
        smtpd.settle()
    assert [each["event"] for each in log.records()] == ["refused"]


def test_an_outage_of_the_store_loses_no_record_and_the_facts_are_kept_for_later(
    redis_server, log, caplog
):
    log_all(caplog)
    words = ["--store", redis_server.url, "--store-timeout=0.5", "--output", str(log.path)]
    app = delivery_log.build(words)
    with FakeSmtpd(app, subsystems=("smtp-in", "smtp-out")) as smtpd:
        redis_server.stop()
        message_id = accepted(smtpd, log, "bob@example.com")
        assert "is away" in caplog.text
        out = smtpd.connect_out()
        out.identify()
        out.tx("alice@example.net", "bob@example.com", refused="rcpt-to", message_id=message_id)
        smtpd.settle()
        [record] = log.records()
        assert (record["event"], record["joined"]) == ("bounced", False)
        redis_server.start()
        smtpd.clock.advance(3)
        out.tx("alice@example.net", "bob@example.com", message_id=message_id)
        smtpd.settle()
    [record] = log.records()
    assert (record["event"], record["joined"], record["user"]) == ("delivered", True, "alice")
