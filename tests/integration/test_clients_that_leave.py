"""Clients that go away in the middle of a message."""

import pytest

from tests.support.client import Client, send_message
from tests.support.filters import command
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd
from tests.support.wait import wait_until


@pytest.fixture(scope="module", params=["lines", "message"])
def running_server(request, require_smtpd):
    filters = {"gone": command("gone", request.param)}
    with Sink() as sink, Smtpd(filters, sink=sink) as server:
        yield server


@pytest.fixture
def server(running_server):
    running_server.sink.clear()
    yield running_server
    assert running_server.alive(), running_server.last_log()


def begin_message(port):
    """Send the first half of a message and return the client."""
    client = Client(port)
    client.greet()
    client.envelope("alice@example.net", "bob@example.org")
    assert client.command("DATA").startswith("354 ")
    client.send(b"Subject: half\r\n\r\nhalf\r\nhalf a li")
    return client


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.shutdown])
def test_a_client_that_leaves_mid_data_ends_its_message_and_its_session(server, leave):
    logged = len(server.log)
    client = begin_message(server.port)
    server.wait_for_log("gone: tapped half", start=logged)
    leave(client)
    server.wait_for_log("gone: message deleted", start=logged)
    server.wait_for_log("gone: session deleted", start=logged)
    client.close()
    send_message(server.port, b"Subject: next\r\n\r\nhello\r\n")
    server.sink.by_subject("next")
    assert len(server.sink.messages) == 1
    wait_until(
        lambda: sum("message deleted" in line for line in server.log[logged:]) == 2,
        10,
        "the second message to end",
    )


def test_100_clients_that_leave_mid_data_leave_no_trace(server):
    logged = len(server.log)
    for _ in range(100):
        begin_message(server.port).reset()
    wait_until(
        lambda: sum("session deleted" in line for line in server.log[logged:]) == 100,
        15,
        "100 sessions to end",
    )
    send_message(server.port, b"Subject: still\r\n\r\nhello\r\n")
    server.sink.by_subject("still")


def test_a_callback_is_cancelled_when_its_client_leaves(smtpd, sink, tmp_path):
    trace = tmp_path / "trace"
    server = smtpd({"trace": command("trace", trace)}, sink=sink)
    client = Client(server.port)
    client.greet()
    client.envelope("alice@example.net", "bob@example.org")
    client.command("DATA")
    client.send(b"Subject: held\r\n\r\nHOLD\r\nrest\r\n")
    wait_until(lambda: "holding" in trace.read_text(), 10, "the callback to block")
    client.reset()
    wait_until(lambda: "session-delete" in trace.read_text(), 10, "the session to end")
    assert "cancelled" in trace.read_text()
    assert "message-delete" in trace.read_text()
    send_message(server.port, b"Subject: next\r\n\r\nhello\r\n")
    sink.by_subject("next")
