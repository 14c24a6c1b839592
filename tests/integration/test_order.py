"""Many sessions at once: none waits for another, and each keeps its own order."""

import threading
import time
from contextlib import ExitStack

from tests.support.client import Client
from tests.support.filters import command
from tests.support.wait import wait_until

SESSIONS = 200


def test_200_sessions_that_each_block_half_a_second_are_answered_within_5_seconds(smtpd):
    server = smtpd({"slow": command("slow")})
    with ExitStack() as stack:
        clients = []
        for _ in range(SESSIONS):
            clients.append(stack.enter_context(Client(server.port)))
            # smtpd's listen backlog is short: let it accept each one before the next comes.
            clients[-1].greet()
        begun = time.monotonic()
        for client in clients:
            client.send(b"MAIL FROM:<alice@example.net>\r\n")
        replies = [client.reply() for client in clients]
        took = time.monotonic() - begun
    assert replies == [["250 2.0.0 Ok"]] * SESSIONS
    assert 0.5 <= took < 5


def test_a_later_session_is_answered_while_an_earlier_one_still_blocks(smtpd):
    server = smtpd({"slow": command("slow")})
    with Client(server.port) as first, Client(server.port) as second:
        first.greet()
        second.greet()
        first.send(b"MAIL FROM:<wait@example.net>\r\n")
        assert second.command("MAIL FROM:<go@example.net>").startswith("250 ")
        assert first.reply()[0].startswith("250 ")


def test_each_session_keeps_its_order_while_20_run_at_once(smtpd, sink, tmp_path):
    trace = tmp_path / "trace"
    server = smtpd({"trace": command("trace", trace)}, sink=sink)
    threads = [threading.Thread(target=converse, args=(server.port,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: trace.read_text().count("session-delete") == 20, 15, "20 sessions to end")

    sessions = {}
    for line in trace.read_text().splitlines():
        sid, name = line.split(" ", 1)
        sessions.setdefault(sid, []).append(name)
    assert len(sessions) == 20
    for events in sessions.values():
        assert events == EVENTS
    bodies = [message.body for message in sink.wait_for(20)]
    assert bodies == [BODY] * 20


LINES = [f"LINE {number}" for number in range(10)]
BODY = "".join(f"{line}\r\n" for line in LINES).encode()
EVENTS = [
    *("session-create", "link_connect", "connect", "link_greeting"),
    *("ehlo", "link_identify"),
    *("mail_from", "message-create", "tx_begin", "tx_mail"),
    *("rcpt_to", "tx_envelope", "tx_rcpt"),
    "data",
    *LINES,
    *("commit", "tx_commit", "tx_reset", "message-delete"),
    *("quit", "link_disconnect", "session-delete"),
]


def converse(port):
    with Client(port) as client:
        client.greet()
        client.envelope("alice@example.net", "bob@example.org")
        client.data(b"Subject: order\r\n\r\n" + BODY)
        client.quit()
