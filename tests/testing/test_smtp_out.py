"""Outgoing sessions send what the real servers reported of theirs."""

from __future__ import annotations

import pytest

from greenfilter import Filter
from greenfilter.testing import FakeSmtpd, OutSession

from .driving import in_transaction, tap
from .recordings import SERVERS, lines
from .replaying import normal, split

ALICE, BOB, CAROL = "alice@example.net", "bob@example.org", "carol@example.com"


def plain(session: OutSession) -> None:
    session.identify()
    session.tx(ALICE, [BOB, CAROL], size=329)


def two_messages(session: OutSession) -> None:
    session.identify()
    session.tx(ALICE, BOB)
    session.tx(ALICE, BOB)
    session.quit()


def data_reject(session: OutSession) -> None:
    session.identify()
    session.tx(ALICE, BOB, refused="data")
    session.tx("", ALICE, refused="data")


def dot_reject(session: OutSession) -> None:
    session.identify()
    session.tx(ALICE, BOB, refused="commit")
    session.tx("", ALICE, refused="commit")


def play(conduct, server: str, name: str) -> tuple[FakeSmtpd, list]:
    recorded = [split(line) for _, line in lines(server, name) if line.startswith(b"report|")]
    rdns, fcrdns, src, dst = recorded[0][3].split("|")
    smtpd = FakeSmtpd(
        tap(register=["report|smtp-out|*"]),
        version="{}.{}".format(*SERVERS[server]),
        subsystems=("smtp-out",),
    )
    with smtpd:
        conduct(smtpd.connect_out(dst, rdns, fcrdns, src, server="sink.example.com"))
    sent = [split(line) for _, line in smtpd.trace if line.startswith(b"report|")]
    return sent, recorded


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("conduct", [plain, two_messages, data_reject, dot_reject])
def test_the_same_reports_as_recorded(server, conduct):
    sent, recorded = play(conduct, server, f"out-{conduct.__name__.replace('_', '-')}")
    assert normal(sent) == normal(recorded)


@pytest.mark.parametrize(("version", "first"), [("0.6", "link-tls"), ("0.7", "link-identify")])
def test_tls_and_auth_are_reported_in_the_order_of_the_version(version, first):
    with FakeSmtpd(
        tap(register=["report|smtp-out|*"]), version=version, subsystems=("smtp-in", "smtp-out")
    ) as smtpd:
        session = smtpd.connect_out()
        session.identify()
        session.tls()
        session.auth("alice")
        session.disconnect()
        assert session.closed
        with pytest.raises(ConnectionError):
            session.tx(ALICE, BOB)
    reports = [split(line) for _, line in smtpd.trace if line.startswith(b"report|")]
    events = [words[1] for words in reports]
    assert {"link-tls", "link-identify"} == set(
        [event for event in events if event in ("link-tls", "link-identify")][1:3]
    )
    assert [event for event in events if event in ("link-tls", "link-identify")][1] == first
    assert reports[-2][1:2] == ["link-auth"]
    assert sorted(reports[-2][3].split("|")) == ["alice", "pass"]


def test_a_refused_recipient_ends_the_transaction_that_then_goes_on():
    with FakeSmtpd(tap(register=["report|smtp-out|*"]), subsystems=("smtp-out",)) as smtpd:
        message_id = smtpd.connect_out().tx(ALICE, [BOB, CAROL], refused="rcpt-to")
        assert smtpd.connect_out().tx(ALICE, BOB, refused="mail-from") is None
    reports = [split(line) for _, line in smtpd.trace if line.startswith(b"report|")]
    events = [words[1] for words in reports if words[1].startswith("tx-")]
    assert events == [
        *("tx-begin", "tx-mail", "tx-envelope", "tx-rollback", "tx-reset", "tx-rcpt"),
        *("tx-envelope", "tx-rcpt", "tx-data", "tx-commit", "tx-reset"),
    ]
    assert {words[3][:8] for words in reports if words[1].startswith("tx-")} == {message_id}


def test_a_message_is_relayed_under_the_id_that_it_came_in_with():
    app = Filter("relayed")
    ids = []

    @app.report.tx_commit
    def came(ctx, message_id, size):
        ids.append(message_id)

    @app.report.tx_commit(outgoing=True)
    def went(ctx, message_id, size):
        ids.append((message_id, ctx.tx.message_id))

    with FakeSmtpd(app, subsystems=("smtp-in", "smtp-out")) as smtpd:
        in_transaction(smtpd).data(b"Subject: hello\n\nhello\n")
        [message] = smtpd.messages
        out = smtpd.connect_out()
        assert out.tx(ALICE, BOB, message_id=message.message_id) == message.message_id
        smtpd.settle()
        with pytest.raises(ValueError, match="not 8 hexadecimal digits"):
            out.tx(ALICE, BOB, message_id="42")
    assert ids == [message.message_id, (message.message_id, message.message_id)]
