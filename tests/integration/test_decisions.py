"""Every decision, in every phase that smtpd asks about without TLS."""

import pytest

from tests.integration.filters import decide as words
from tests.support.client import Client
from tests.support.filters import command
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd, version

PHASES = ["helo", "ehlo", "mail-from", "rcpt-to", "data", "rset", "quit", "noop", "commit"]
ADDRESSES = {word: address for address, word in words.CONNECT.items()}
REPLIES = {
    "reject": "550 5.7.1 refused here",
    "tempreject": "450 4.7.1 refused here",
    "reject421": "421 refused here",
    "disconnect": "550 5.7.1 refused here",
}
CLOSING = {"reject421", "disconnect"}
# Where report is legal, on a server that has it.
REPORTING = ["connect", "data", "commit"] if version() >= (7, 6) else []
# What smtpd says to a command of each phase that it lets pass.
PASSED = {"data": "354 ", "quit": "221 "}


@pytest.fixture(scope="module")
def running_server(require_smtpd):
    with Sink() as sink, Smtpd({"decide": command("decide")}, sink=sink) as server:
        yield server


@pytest.fixture
def server(running_server):
    running_server.sink.clear()
    yield running_server
    assert running_server.alive(), running_server.last_log()


def reach(client, phase, decision, subject="decided"):
    """Go as far as ``phase``, naming ``decision`` for it all the way, and return its reply."""
    word = f"{phase}-{decision}"
    assert client.reply()[0].startswith("220 ")
    if phase == "helo":
        return client.command(f"HELO {word}.example.net")
    reply = client.command(f"EHLO {word}.example.net")
    if phase == "ehlo":
        return reply
    if phase in ("rset", "quit", "noop"):
        return client.command(phase)
    reply = client.command(f"MAIL FROM:<{word}@example.net>")
    if phase == "mail-from":
        return reply
    reply = client.command(f"RCPT TO:<{word}@example.org>")
    if phase == "rcpt-to":
        return reply
    if phase == "data":
        return client.command("DATA")
    return client.data(f"Subject: {subject}\r\n\r\n".encode())


def deliver(client, subject):
    """Send a message in which no phase finds a decision named."""
    client.envelope("alice@example.net", "bob@example.org")
    assert client.data(f"Subject: {subject}\r\n\r\nhello\r\n".encode()).startswith("250 ")


def is_junk(message):
    return message.headers["X-Spam"] == "Yes"


@pytest.mark.parametrize("decision", ["nothing", "proceed"])
@pytest.mark.parametrize("phase", PHASES)
def test_proceed_and_nothing_let_the_command_pass(server, phase, decision):
    with Client(server.port) as client:
        assert reach(client, phase, decision).startswith(PASSED.get(phase, "250 "))


@pytest.mark.parametrize("decision", ["reject", "tempreject"])
@pytest.mark.parametrize("phase", PHASES)
def test_reject_refuses_the_command_and_the_session_goes_on(server, phase, decision):
    with Client(server.port) as client:
        assert reach(client, phase, decision) == REPLIES[decision]
        assert client.command("HELP").startswith("214 ")


@pytest.mark.parametrize("decision", ["disconnect", "reject421"])
@pytest.mark.parametrize("phase", PHASES)
def test_disconnect_refuses_the_command_and_ends_the_session(server, phase, decision):
    with Client(server.port) as client:
        assert reach(client, phase, decision) == REPLIES[decision]
        assert client.closed()


@pytest.mark.parametrize("decision", sorted(REPLIES))
def test_every_refusal_at_connect_ends_the_session(server, decision):
    with Client(server.proxy_port, proxy=ADDRESSES[decision]) as client:
        assert client.reply() == [REPLIES[decision]]
        assert client.closed()


@pytest.mark.parametrize("decision", ["nothing", "proceed", "junk"])
def test_what_does_not_refuse_at_connect_gives_the_banner(server, decision):
    with Client(server.proxy_port, proxy=ADDRESSES[decision]) as client:
        assert client.greet().startswith("250 ")


def test_a_message_refused_at_commit_is_not_delivered(server):
    with Client(server.port) as client:
        assert reach(client, "commit", "reject", "refused") == REPLIES["reject"]
        deliver(client, "accepted")
    server.sink.by_subject("accepted")
    assert [m.headers["Subject"] for m in server.sink.messages] == ["accepted"]


@pytest.mark.parametrize("phase", ["helo", "ehlo", "noop", "mail-from"])
def test_junk_outside_a_transaction_marks_every_message_of_the_session(server, phase):
    with Client(server.port) as client:
        assert reach(client, phase, "junk").startswith("250 ")
        if phase == "mail-from":
            assert client.command("RSET").startswith("250 ")
        deliver(client, "first")
        deliver(client, "second")
    assert is_junk(server.sink.by_subject("first"))
    assert is_junk(server.sink.by_subject("second"))


def test_junk_at_connect_marks_every_message_of_the_session(server):
    with Client(server.proxy_port, proxy=ADDRESSES["junk"]) as client:
        client.greet()
        deliver(client, "first")
        deliver(client, "second")
    assert is_junk(server.sink.by_subject("first"))
    assert is_junk(server.sink.by_subject("second"))


@pytest.mark.parametrize("phase", ["rcpt-to", "data"])
def test_junk_inside_a_transaction_marks_that_message_only(server, phase):
    sender = "data-junk@example.net" if phase == "data" else "alice@example.net"
    recipient = "rcpt-to-junk@example.org" if phase == "rcpt-to" else "bob@example.org"
    with Client(server.port) as client:
        client.greet()
        client.envelope(sender, recipient)
        assert client.data(b"Subject: first\r\n\r\n").startswith("250 ")
        deliver(client, "second")
    assert is_junk(server.sink.by_subject("first"))
    assert not is_junk(server.sink.by_subject("second"))


@pytest.mark.parametrize("phase", ["rset", "quit"])
def test_junk_at_rset_and_quit_lets_the_command_pass(server, phase):
    with Client(server.port) as client:
        assert reach(client, phase, "junk").startswith(PASSED.get(phase, "250 "))


@pytest.mark.parametrize("method", ["HELO", "EHLO"])
def test_rewrite_replaces_the_identity(server, method):
    with Client(server.port) as client:
        client.reply()
        client.command(f"{method} {method.lower()}-rewrite.example.net")
        deliver(client, f"rewritten {method}")
    message = server.sink.by_subject(f"rewritten {method}")
    assert message.headers["Received"].startswith("from rewritten.example.net ")
    server.wait_for_log("committed rewritten.example.net alice@example.net bob@example.org")


def test_rewrite_replaces_sender_and_recipient_also_in_the_transaction(server):
    with Client(server.port) as client:
        client.greet("name.example.net")
        client.envelope("mail-from-rewrite@example.net", "rcpt-to-rewrite@example.org", "c@d.org")
        assert client.data(b"Subject: rewritten\r\n\r\n").startswith("250 ")
    messages = server.sink.wait_for(2)
    assert {message.mail_from for message in messages} == {"rewritten@example.net"}
    assert {message.rcpt_tos for message in messages} == {("rewritten@example.org",), ("c@d.org",)}
    server.wait_for_log(
        "committed name.example.net rewritten@example.net rewritten@example.org c@d.org"
    )


@pytest.mark.parametrize(
    ("phase", "decision"),
    [(phase, "rewrite") for phase in ("data", "rset", "quit", "noop", "commit")]
    + [(phase, "report") for phase in PHASES if phase not in REPORTING]
    + [("commit", "junk")],
)
def test_a_decision_that_would_break_this_server_becomes_a_temporary_refusal(
    server, phase, decision
):
    logged = len(server.log)
    with Client(server.port) as client:
        assert reach(client, phase, decision).startswith("451 4.3.0 ")
        assert client.command("HELP").startswith("214 ")
    server.wait_for_log(f"decide: .*{phase}.*", start=logged)


@pytest.mark.parametrize("phase", [phase for phase in REPORTING if phase != "connect"])
def test_report_lets_the_command_pass(server, phase):
    with Client(server.port) as client:
        assert reach(client, phase, "report").startswith(PASSED.get(phase, "250 "))


@pytest.mark.skipif(not REPORTING, reason="smtpd 7.6 and later")
def test_report_at_connect_gives_the_banner(server):
    with Client(server.proxy_port, proxy=ADDRESSES["report"]) as client:
        assert client.greet().startswith("250 ")


@pytest.mark.parametrize("decision", ["rewrite"] if REPORTING else ["rewrite", "report"])
def test_a_decision_that_connect_does_not_allow_ends_the_session(server, decision):
    with Client(server.proxy_port, proxy=ADDRESSES[decision]) as client:
        assert client.reply()[0].startswith("451 4.3.0 ")
        assert client.closed()


def test_addresses_with_a_bar_and_the_null_sender_are_known_as_they_are(server):
    with Client(server.port) as client:
        client.greet("odd.example.net")
        client.envelope("a|b@example.net", "c|d|@example.org")
        assert client.data(b"Subject: bars\r\n\r\n").startswith("250 ")
        client.envelope("", "Bob@Example.ORG")
        assert client.data(b"Subject: null\r\n\r\n").startswith("250 ")
    server.wait_for_log(r"committed odd\.example\.net a\|b@example\.net c\|d\|@example\.org$")
    server.wait_for_log(r"committed odd\.example\.net  Bob@Example\.ORG$")
    assert server.sink.by_subject("null").mail_from == ""
