"""One filter in C with libopensmtpd and line by line in Python: smtpd's clients see no difference.

What the two print, and smtpd logs, is the same too.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import unavailable
from tests.support.client import Client
from tests.support.filters import command
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd
from tests.support.wait import wait_until

FILTERS = Path(__file__).parent / "filters"
HEADER = Path("/usr/include/opensmtpd.h")

SESSIONS = 7
BODY = [b"", b".", b"..", b".dot", b"a|b|", b"100% %s %d", b"8-bit \xe9\xff", b"bare \r CR"]


@pytest.fixture(scope="module")
def c_filter(tmp_path_factory):
    if not (HEADER.exists() and shutil.which("cc")):
        unavailable("cc and opensmtpd.h are not installed (Debian: gcc, libopensmtpd-dev)")
    program = tmp_path_factory.mktemp("port") / "port"
    source = FILTERS / "port.c"
    subprocess.run(["cc", "-Wall", "-o", program, source, "-lopensmtpd"], check=True)
    return str(program)


def test_the_port_does_what_the_c_filter_does(c_filter, require_smtpd):
    in_c = dialogue(c_filter)
    in_python = dialogue(command(FILTERS / "port.py"))
    assert in_python["replies"] == in_c["replies"]
    assert in_python["messages"] == in_c["messages"]
    assert in_python["log"] == in_c["log"]


def test_what_is_compared_shows_that_the_filter_did_something(require_smtpd):
    seen = dialogue(command(FILTERS / "port.py"))
    assert "550 spam.example.net is 100% spam, 3 times" in seen["replies"]
    assert "550 5.7.1 bad@example.net is bad" in seen["replies"]
    assert ["451 released by another session"] in seen["replies"]
    assert "554 3 are too many" in seen["replies"]
    assert "550 refused for its subject" in seen["replies"]
    for subject, (sender, recipients, content) in zip(
        (b"one", b"two"), seen["messages"], strict=True
    ):
        assert (sender, recipients) == ("alice@example.net", ("bob@example.org",))
        assert content.startswith(b"X-Lines: 15 from alice@example.net\r\nSubject: " + subject)
        assert content.endswith(b"\r\n\r\n" + b"\r\n".join(BODY) + b"\r\n.footer, 100%\r\n")
    for line in ("conf: end", "message: 15 lines", "session: 2 commands", "report commit: 1 1"):
        assert line in seen["log"]


def dialogue(program):
    """Talk to a filter; return what its client, the next server and the log saw."""
    with Sink() as sink, Smtpd({"port": program}, sink=sink) as server:
        replies = [
            *greetings(server),
            *refused_envelopes(server),
            *held_until_another_session_speaks(server),
            *messages(server),
        ]
        sink.wait_for(2)
        wait_until(lambda: ended(server) == SESSIONS, 10, "the sessions to end")
        server.stop()
        log = [line.partition("port: ")[2] for line in server.log if "port: " in line]
    received = [
        (message.mail_from, message.rcpt_tos, without_times(message.content))
        for message in sink.messages
    ]
    # Reports of DATA and its reply come before, between or after the lines of the message.
    return {"replies": replies, "messages": sorted(received), "log": sorted(log)}


def ended(server):
    return sum("report disconnect" in line for line in server.log)


def without_times(content):
    """Leave out the header lines with smtpd's own ids and times."""
    head, _, body = content.partition(b"\r\n\r\n")
    lines = head.replace(b"\r\n\t", b" ").split(b"\r\n")
    own = (b"Received:", b"Date:", b"Message-ID:")
    return b"\r\n".join(line for line in lines if not line.startswith(own)) + b"\r\n\r\n" + body


def greetings(server):
    with Client(server.port) as client:
        client.reply()
        yield client.command("HELO client.example.net")
        assert client.closed()
    for identity in ("spam.example.net", "gone.example.net"):
        with Client(server.port) as client:
            yield client.greet(identity)
            if identity != "gone.example.net":
                yield client.quit()


def refused_envelopes(server):
    with Client(server.port) as client:
        yield client.greet()
        yield client.command("MAIL FROM:<bad@example.net>")
        yield client.command("MAIL FROM:<alice@example.net>")
        yield client.command("RCPT TO:<nobody@example.org>")
        yield client.command("RSET")
        yield client.command("MAIL FROM:<alice@example.net>")
        for number in range(3):
            yield client.command(f"RCPT TO:<bob{number}@example.org>")
        yield client.command("DATA")
        yield client.quit()


def held_until_another_session_speaks(server):
    with Client(server.port) as client, Client(server.port) as other:
        client.greet()
        other.greet()
        client.send(b"MAIL FROM:<held@example.net>\r\n")
        server.wait_for_log(r"report client: MAIL FROM:<held@example.net>")
        yield other.command("NOOP")
        yield client.reply()
        yield other.quit()
        yield client.quit()


def messages(server):
    content = b"Subject: %b\r\nFrom: alice@example.net\r\n\r\n" + b"\r\n".join(BODY)
    with Client(server.port) as client:
        yield client.greet("client.example.net")
        for subject in (b"one", b"refuse", b"two"):
            client.envelope("alice@example.net", "bob@example.org")
            reply = client.data(content.replace(b"%b", subject, 1))
            yield reply if subject == b"refuse" else reply[:9]  # the rest has smtpd's own id
        yield client.quit()
