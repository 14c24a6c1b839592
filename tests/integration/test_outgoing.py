"""Reports of the mail that smtpd relays."""

from tests.support.client import Client
from tests.support.filters import command
from tests.support.sink import Sink


def test_smtp_out_reports_reach_their_handlers_with_session_and_transaction(smtpd):
    refuse = {"nobody@example.org": "550 5.1.1 no such user"}
    with Sink(refuse, addresses=["127.0.0.1"]) as sink:
        filters = {"outgoing": command("outgoing")}
        server = smtpd(filters, relay_filter="outgoing", sink=sink)
        with Client(server.port) as client:
            client.greet()
            client.envelope("alice@example.net", "bob@example.org", "nobody@example.org")
            assert client.data(b"Subject: out\r\n\r\nhello\r\n").startswith("250 ")
        sink.by_subject("out")
        for line in (
            "incoming True alice@example.net bob@example.org nobody@example.org",
            f"link_connect False 127.0.0.1 {sink.port}",
            "link_identify EHLO ",
            "tx_rcpt ok bob@example.org",
            "tx_rcpt permfail nobody@example.org",
            "tx_commit True alice@example.net",
        ):
            server.wait_for_log(f"^outgoing: {line}")
        assert server.alive()
