"""What is relayed, and the smtp-out reports of it, compared with the real servers'."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import gevent.server
import gevent.socket
import pytest

from tests.testing.driving import tap
from tests.testing.recordings import SERVERS, TRANSCRIPTS
from tests.testing.replaying import Line, Recorded, normal, split

from .dialogues import play, steps
from .serving import Served, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

_SINK = re.compile(r"\[sink 1\] (C:|S:) (.*)")
# Differences: the recorded servers keep a connection for more mail, and send a bounce over it; here
# each message has its own, and there are no bounces. So out-two-messages is left out, and the rest
# is compared up to QUIT or the bounce. Left out too: out-starttls, out-smtps-auth and out-lmtp, as
# mail is relayed in plain text; out-and-in is out-plain with more reports.
PLAYED = [
    "out-plain",
    "out-helo-fallback",
    "out-mail-reject",
    "out-mail-tempfail",
    "out-data-reject",
    "out-dot-reject",
    "out-421-banner",
    "out-remote-closes",
]


@contextmanager
def recorded_sink(server: str, name: str) -> Iterator[tuple[int, list[bytes]]]:
    """The receiving server of a recording, up to its first message: port, messages."""
    path = TRANSCRIPTS / server / f"{name}.client"
    todo = [found.groups() for found in map(_SINK.fullmatch, path.read_text().split("\n")) if found]
    messages: list[bytes] = []

    def serve(sock, address):
        with sock, sock.makefile("rb") as lines:
            for who, text in todo:
                if who == "S:":
                    sock.sendall(f"{text}\r\n".encode())
                    if text.startswith("354"):
                        messages.append(b"".join(iter(lines.readline, b".\r\n")))
                elif (said := lines.readline()) != f"{text}\r\n".encode():
                    assert said == b"QUIT\r\n"
                    sock.sendall(b"221 bye\r\n")
                    return

    listening = gevent.server.StreamServer(("127.0.0.1", 0), serve)
    listening.start()
    try:
        yield listening.server_port, messages
    finally:
        listening.stop()


def _until(lines: list[str], end: str) -> list[str]:
    return lines[: lines.index(end)] if end in lines else lines


def _outgoing(session: list[Line], *ends: str) -> list[str]:
    lines = [list(words) for words in session]
    for words in lines:
        if words[1] == "link-connect":
            # What the machine's DNS says of 127.0.0.1 is not known here.
            words[3] = re.sub(r":\d+", ":port", words[3].split("|", 2)[2])
    others, _ = normal(lines)
    for end in ends:
        others = _until(others, f"report protocol-client {end}")
    return others


def _reports(served: Served) -> dict[str, list[Line]]:
    sessions: dict[str, list[Line]] = {}
    for event in served.events("protocol"):
        if event["line"].startswith("report|"):
            words = split(event["line"].encode())
            sessions.setdefault(words[2], []).append(words)
    return sessions


def _delivered(served: Served) -> bool:
    lines = [event["line"] for event in served.events("protocol")]
    return any("|smtp-out|link-disconnect|" in line for line in lines)


@pytest.mark.parametrize("name", PLAYED)
@pytest.mark.parametrize("server", SERVERS)
def test_the_same_reports_of_a_delivery_as_recorded(server, name):
    todo = [step for step in steps(server, name) if step.client == "c1"]
    theirs = next(iter(Recorded(server, name).sessions.values()))
    with (
        recorded_sink(server, name) as (port, messages),
        serving(
            tap(register=["report|smtp-out|*"]),
            version="{}.{}".format(*SERVERS[server]),
            smtp_out=("127.0.0.1", port),
            starttls=False,
            src="192.0.2.10",
            rdns="client.example.net",
        ) as served,
    ):
        play(served.port, todo)
        served.wait_for("the end of the delivery", lambda: _delivered(served))
        ours = next(iter(_reports(served).values()))
    bounced = _outgoing(theirs, "MAIL FROM:<>", "QUIT")
    assert _outgoing(ours, "QUIT")[: len(bounced)] == bounced
    if name == "out-plain":
        assert messages[0].endswith(b"\r\n\r\nline | one\r\n..dot\r\n")


def test_it_is_told_which_recipients_a_message_was_relayed_to():
    def serve(sock, address):
        with sock, sock.makefile("rb") as lines:
            sock.sendall(b"220 other.example.org\r\n")
            for line in lines:
                if line.startswith(b"RCPT TO:<carol"):
                    sock.sendall(b"550 5.1.1 no carol here\r\n")
                elif line == b"DATA\r\n":
                    sock.sendall(b"354 go\r\n")
                    list(iter(lines.readline, b".\r\n"))
                    sock.sendall(b"250 taken\r\n")
                elif line == b"QUIT\r\n":
                    return  # without a word: the message is there all the same
                else:
                    sock.sendall(b"250 ok\r\n")

    other = gevent.server.StreamServer(("127.0.0.1", 0), serve)
    other.start()
    with serving(tap(), smtp_out=("127.0.0.1", other.server_port)) as served:
        with gevent.socket.create_connection(("127.0.0.1", served.port)) as client:
            replies = client.makefile("rb")
            for command in (
                *("HELO client.example.net", "MAIL FROM:<alice@example.net>"),
                *(f"RCPT TO:<{name}@example.org>" for name in ("bob", "carol", "dave")),
                *("DATA", "Subject: hello\r\n\r\nhello\r\n.", "QUIT"),
            ):
                assert replies.readline()[:1] in b"23"
                client.sendall(f"{command}\r\n".encode())
        served.wait_for("the end of the delivery", lambda: served.events("relayed"))
        [relayed] = served.events("relayed")
        assert relayed["rcpt_to"] == ["bob@example.org", "dave@example.org"]
        assert relayed["refused"] == {"carol@example.org": "550 5.1.1 no carol here"}
    assert served.events("failed") == []
    other.stop()
