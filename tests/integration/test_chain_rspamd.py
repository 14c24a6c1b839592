"""Debian's filter-rspamd in a chain, under the real smtpd and with the real rspamd."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import unavailable
from tests.support import rspamd
from tests.support.client import Client
from tests.support.filters import command
from tests.support.rspamd import BODY, asking_for
from tests.support.wait import wait_until

PROGRAM = "/usr/libexec/opensmtpd/filter-rspamd"
# In front of it: the recipient is another one. Behind it: sees what it has made of the message.
AROUND = """
import sys
from greenfilter import Filter, rewrite

app = Filter("around")

if sys.argv[1] == "before":
    app.filter.rcpt_to(lambda ctx, to: rewrite("carol@example.org") if "alias" in to else None)
else:

    @app.lines
    def last(ctx, lines):
        yield b"X-Last: yes"
        yield from lines
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    if not os.access(PROGRAM, os.X_OK):
        unavailable(f"{PROGRAM} is not installed (Debian: opensmtpd-filter-rspamd)")
    with rspamd.running(tmp_path_factory) as server:
        yield server


@pytest.fixture
def server(smtpd, sink, daemon, tmp_path):
    (tmp_path / "around.py").write_text(AROUND)
    chain = tmp_path / "mx.toml"
    chain.write_text(
        "[[filter]]\nrun = 'around.py'\noptions = ['before']\n"
        f"[[filter]]\nexec = '{PROGRAM} -url http://127.0.0.1:{daemon.port}'\n"
        "[[filter]]\nrun = 'around.py'\noptions = ['behind']\n"
    )
    return smtpd({"mx": command(chain)}, sink=sink)


def begin(server, recipient: str = "bob@example.org") -> Client:
    client = Client(server.port)
    client.greet()
    client.envelope("alice@example.net", recipient)
    return client


def crlf(message: bytes) -> bytes:
    return message.replace(b"\n", b"\r\n")


def children(pid: int) -> set[int]:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(word) for word in words}


def test_a_message_that_it_has_nothing_against_passes_unchanged(server, sink):
    with begin(server) as client:
        assert client.data(crlf(BODY)).startswith("250 ")
    (received,) = sink.wait_for(1)
    assert received.headers["X-Last"] == "yes"
    assert received.headers.get_all("X-A") == ["1", "2", "3"]
    assert received.body == b"hello \xff\r\n.\r\n"


@pytest.mark.parametrize(
    ("action", "reply"),
    [("reject", "550 not this one"), ("soft reject", "451 not this one")],
)
def test_it_refuses(server, action, reply):
    with begin(server) as client:
        asked = asking_for(action=action, message="not this one")
        assert client.data(crlf(asked)) == reply
    server.wait_for_log(r"commit: reject\(.*\) by filter-rspamd \(member 2\)")


def test_it_adds_and_removes_headers(server, sink):
    milter = {"add_headers": {"X-New": "1"}, "remove_headers": {"X-A": 1}}
    with begin(server) as client:
        asked = asking_for(action="add header", milter=milter)
        assert client.data(crlf(asked)).startswith("250 ")
    (received,) = sink.wait_for(1)
    assert (received.headers["X-New"], received.headers["X-Spam"]) == ("1", "yes")
    assert received.headers.get_all("X-A") == ["2"]  # it was x-a, which it does not take for one


@pytest.mark.parametrize("killed", ["nobody", "worker", "program"])
def test_rspamd_is_told_of_the_session_whoever_is_killed_meanwhile(server, sink, killed):
    supervisor = server.filter_pid("mx")
    with begin(server) as client:
        (worker,) = (pid for pid in children(supervisor) if children(pid))
        (program,) = children(worker)
        if killed == "worker":
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: worker not in children(supervisor), 10, "the end of the worker")
        elif killed == "program":
            os.kill(program, signal.SIGKILL)
            server.wait_for_log("filter-rspamd: it was ended by signal 9")
            server.wait_for_log("filter-rspamd: it runs again")
        reply = client.data(crlf(asking_for(facts=True)))
        assert reply.startswith("250 "), reply
        assert client.quit().startswith("221 ")
    (received,) = sink.wait_for(1)
    told = json.loads(received.headers["X-Told"])
    assert (told["sender"], told["recipients"]) == ("alice@example.net", ["bob@example.org"])
    assert (told["ip"], told["Helo"]) == ("127.0.0.1", "client.example.net")
    assert told["MTA-Name"] == "mx.example.org"


def test_without_rspamd_it_disconnects_and_without_itself_the_policy_answers(server, daemon):
    daemon.stop()
    try:
        with begin(server) as client:
            assert client.data(crlf(BODY)).startswith("421 ")
    finally:
        daemon.start()
    with begin(server) as client:
        assert client.data(crlf(BODY)).startswith("250 ")
    assert server.alive()
