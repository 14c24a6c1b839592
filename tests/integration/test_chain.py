"""Two filters of one listener, one after the other."""

import pytest

from tests.support.client import Client
from tests.support.filters import command
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd


@pytest.fixture(scope="module")
def running_server(require_smtpd):
    filters = {"one": command("stamp", "X-One"), "two": command("stamp", "X-Two")}
    with Sink() as sink, Smtpd(filters, sink=sink) as server:
        yield server


@pytest.fixture
def server(running_server):
    running_server.sink.clear()
    yield running_server
    assert running_server.alive(), running_server.last_log()


def send(server, sender, subject):
    with Client(server.port) as client:
        client.greet()
        reply = client.command(f"MAIL FROM:<{sender}>")
        if reply.startswith("250 "):
            client.command("RCPT TO:<bob@example.org>")
            reply = client.data(f"Subject: {subject}\r\n\r\n..dots\r\n".encode())
        return reply


def test_lines_go_through_the_first_filter_and_then_the_second(server):
    assert send(server, "alice@example.net", "both").startswith("250 ")
    message = server.sink.by_subject("both")
    assert message.content.startswith(b"X-Two: alice@example.net\r\nX-One: alice@example.net\r\n")
    assert message.body == b"..dots\r\n"


@pytest.mark.parametrize("name", ["X-One", "X-Two"])
def test_each_filter_can_refuse(server, name):
    assert send(server, f"{name}-reject@example.net", "refused") == f"550 refused by {name}"


def test_a_rewrite_of_the_first_ends_the_chain_and_both_know_the_new_sender(server):
    logged = len(server.log)
    assert send(server, "X-One-rewrite@example.net", "rewritten").startswith("250 ")
    message = server.sink.by_subject("rewritten")
    assert message.mail_from == "rewritten@example.net"
    assert message.headers["X-One"] == message.headers["X-Two"] == "rewritten@example.net"
    assert [line for line in server.log[logged:] if "asked" in line] == [
        "one: asked X-One-rewrite@example.net"
    ]


def test_a_rewrite_of_the_second_is_known_to_both(server):
    assert send(server, "X-Two-rewrite@example.net", "second").startswith("250 ")
    message = server.sink.by_subject("second")
    assert message.headers["X-One"] == message.headers["X-Two"] == "rewritten@example.net"
