"""Messages that a filter edits, byte for byte, by data_line, lines and message."""

import pytest

from tests.support.client import Client
from tests.support.filters import command
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd, version

KEPT = [
    b".",
    b"..",
    b".leading dot",
    b"a|b||c|",
    b"8-bit \xe9\xff\x80",
    b"bare \r CR",
    b"CR at the end\r",
    b"",
    b"x" * 1900,
    b"." + b"y" * 1900,
]
EDITED = [
    (b"DROP this", []),
    (b"TWICE .dot|\xe9", [b".dot|\xe9", b".dot|\xe9"]),
    (b"REPLACE .", [b"."]),
    (b"REPLACE with\ra CR", [b"with\ra CR"]),
    (b"REPLACE", [b""]),
    (b"", [b""]),
]

CUTS_LINES = version() < (7, 4)  # protocol 0.6 and before


@pytest.fixture(scope="module", params=["data_line", "lines", "message"])
def running_server(request, require_smtpd):
    filters = {"edit": command("edit", request.param)}
    with Sink() as sink, Smtpd(filters, sink=sink) as server:
        yield server


@pytest.fixture
def server(running_server):
    running_server.sink.clear()
    yield running_server
    assert running_server.alive(), running_server.last_log()


def send(server, subject, lines):
    """Send a message with these lines as its body; return the last reply line."""
    content = b"Subject: " + subject.encode() + b"\r\n\r\n"
    with Client(server.port) as client:
        client.greet()
        client.envelope("alice@example.net", "bob@example.org")
        return client.data(content + b"".join(line + b"\r\n" for line in lines))


def joined(lines):
    return b"".join(line + b"\r\n" for line in lines)


def test_lines_that_are_kept_pass_byte_for_byte(server):
    assert send(server, "kept", KEPT).startswith("250 ")
    assert server.sink.by_subject("kept").body == joined(KEPT)


def test_lines_are_dropped_replaced_and_multiplied(server):
    lines = [line for line, _ in EDITED for line in (line, b"between")]
    expected = [line for _, new in EDITED for line in (*new, b"between")]
    assert send(server, "edited", lines).startswith("250 ")
    assert server.sink.by_subject("edited").body == joined(expected)


def test_a_message_without_a_body_passes(server):
    assert send(server, "empty", []).startswith("250 ")
    assert server.sink.by_subject("empty").body == b""


def test_a_message_of_many_lines_passes_whole(server):
    lines = [b"%d %s" % (number, b"." * (number % 80)) for number in range(20_000)]
    assert send(server, "many", lines).startswith("250 ")
    assert server.sink.by_subject("many").body == joined(lines)


@pytest.mark.parametrize("length", [1998, 3000, 60_000])
@pytest.mark.skipif(CUTS_LINES, reason="smtpd 7.4 and later")
def test_a_long_line_passes_whole(server, length):
    assert send(server, "long", [b"z" * length]).startswith("250 ")
    assert server.sink.by_subject("long").body == joined([b"z" * length])


@pytest.mark.parametrize("length", [1998, 3000, 60_000] if CUTS_LINES else [64_000])
def test_a_line_that_this_server_would_cut_refuses_the_message(server, length):
    assert send(server, "too long", [b"z" * length]).startswith("554 ")
    assert send(server, "next", [b"hello"]).startswith("250 ")
    server.sink.by_subject("next")
    assert len(server.sink.messages) == 1


def test_two_messages_of_one_session_are_edited_apart(server):
    with Client(server.port) as client:
        client.greet()
        for subject in (b"one", b"two"):
            client.envelope("alice@example.net", "bob@example.org")
            reply = client.data(b"Subject: %b\r\n\r\nDROP\r\n%b\r\n" % (subject, subject))
            assert reply.startswith("250 ")
    assert server.sink.by_subject("one").body == b"one\r\n"
    assert server.sink.by_subject("two").body == b"two\r\n"


def test_a_message_handler_edits_headers_replaces_and_refuses(smtpd, sink):
    server = smtpd({"edit": command("edit", "message")}, sink=sink)
    assert send(server, "refuse", [b"hello"]) == "550 5.7.1 refused for its subject"
    assert send(server, "replace", [b"hello"]).startswith("250 ")
    assert send(server, "edited", [b"hello"]).startswith("250 ")
    assert sink.by_subject("edited").headers["X-Edited"] == "yes"
    assert sink.by_subject("replaced").body == b".all of it\r\n"
    assert len(sink.messages) == 2
