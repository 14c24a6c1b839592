"""A chain file under the real smtpd, with other people's filters in it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.benchmarks.peers import MissingPeer, compiled
from tests.conftest import unavailable
from tests.support.client import Client
from tests.support.filters import command
from tests.support.wait import wait_until
from tests.testing.driving import tap

SENDERS, EACH = 4, 12


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """A C filter on libopensmtpd that echoes each line."""
    folder = tmp_path_factory.mktemp("echo")
    try:
        (program,) = compiled("echo", folder)
    except MissingPeer as error:
        unavailable(str(error))
    return program


def write(path: Path, *blocks: str) -> Path:
    path.write_text("\n".join(f"[[filter]]\n{block}\n" for block in blocks))
    return path


def pids_of(server, program: str) -> list[int]:
    """The processes of a program among those of the server."""
    found = []
    for pid in server.pids():
        try:
            first = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if first == program.encode():
            found.append(pid)
    return found


def smtpds(server) -> set[int]:
    return set(server.pids()) - set(server.filter_pids())


def test_a_c_filter_that_is_killed_under_load_loses_nothing_and_smtpd_does_not_notice(
    smtpd, sink, echo, tmp_path
):
    chain = write(tmp_path / "mx.toml", f'exec = "{echo}"', f'exec = "{echo}"')
    server = smtpd({"mx": command(chain)}, sink=sink)
    before = smtpds(server)
    failures: list[str] = []

    def send(number: int) -> None:
        for count in range(EACH):
            subject, body = f"{number}-{count}", b"line\r\n" * 200
            end = time.monotonic() + 60
            while time.monotonic() < end:
                with Client(server.port) as client:
                    client.greet()
                    client.envelope("alice@example.net", "bob@example.org")
                    reply = client.data(b"Subject: %b\r\n\r\n%b" % (subject.encode(), body))
                if reply.startswith("250 "):
                    break
                if not reply.startswith("451 4.3.0 "):
                    failures.append(reply)
                time.sleep(0.05)
            else:
                failures.append(f"{subject} was not delivered")

    threads = [threading.Thread(target=send, args=(number,)) for number in range(SENDERS)]
    for thread in threads:
        thread.start()
    kills = 0
    while any(thread.is_alive() for thread in threads):
        for pid in pids_of(server, echo) if kills < 6 else []:
            os.kill(pid, signal.SIGKILL)
            kills += 1
        threads[0].join(0.3)
    for thread in threads:
        thread.join()
    assert failures == []
    assert kills >= 2
    received = sink.wait_for(SENDERS * EACH)
    assert sorted(message.headers["Subject"] for message in received) == sorted(
        f"{number}-{count}" for number in range(SENDERS) for count in range(EACH)
    )
    assert {message.body for message in received} == {b"line\r\n" * 200}
    assert smtpds(server) == before
    server.wait_for_log("it was ended by signal 9; it is started again")


# Each of them ends smtpd, hangs the session, or cuts the client if a filter of smtpd's writes it.
FATAL = [
    "nonsense|x",
    "reject",
    "proceed|x",
    "proceed\r",
    "print hello",
    "!",
    "!filter-result|%S|0123456789abcdef|proceed",
    "!filter-result|%T|%S|proceed",
    "!filter-result|%S|%T|proceed\nfilter-result|%S|%T|proceed",
    "!filter-dataline|%S|%T|x",
    "!register|filter|smtp-out|connect",
    "!report|1.000001|smtp-in|%S|hi",
    "report|hello",
    "reject|250 fine",
    "reject|" + "x" * 20_000,
    "none",
    "exit 0",
    "exit 3",
]


def test_nothing_that_programs_write_is_noticed_by_smtpd(smtpd, sink, tmp_path):
    blocks = [
        f"exec = {json.dumps(shlex.join(tap(answers={phase: [answer]})))}\n"
        "deadline = 0.5\non_error = 'proceed'"
        for answer in [*FATAL, "junk", "rewrite|x"]
        for phase in (["commit"] if answer in ("junk", "rewrite|x") else ["noop"])
    ]
    blocks += [
        f"exec = {json.dumps(shlex.join(tap(data=mode)))}\ndeadline = 0.5\non_error = 'proceed'"
        for mode in ("result", "after-dot", "without-dot")
    ]
    server = smtpd({"mx": command(write(tmp_path / "mx.toml", *blocks))}, sink=sink)
    before = smtpds(server)
    workers = [pid for pid in server.filter_pids() if "worker" in command_line(pid)]
    assert len(workers) == 1
    with Client(server.port) as client:
        client.greet()
        assert client.command("NOOP").startswith("250 ")
        client.envelope("alice@example.net", "bob@example.org")
        data = b"Subject: hello\r\n\r\n" + b"line\r\n" * 100
        assert client.data(data).startswith("250 ")
        assert client.command("NOOP").startswith("250 ")
    (message,) = sink.wait_for(1)
    assert message.body == b"line\r\n" * 100
    assert smtpds(server) == before
    assert [pid for pid in server.filter_pids() if "worker" in command_line(pid)] == workers


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


ASKED = """
from greenfilter import Filter

app = Filter("asked")
for phase in ("connect", "ehlo", "mail_from", "rcpt_to", "data", "commit"):
    getattr(app.filter, phase)(lambda ctx, *values: ctx.log.info("asked %s", ctx.phase))
"""


def test_smtpds_own_filters_in_front_hide_only_what_they_decide_about(smtpd, sink, tmp_path):
    (tmp_path / "asked.py").write_text(ASKED)
    chain = write(tmp_path / "mx.toml", "run = 'asked.py'")
    conf = """
        table bad { 127.0.0.2 }
        table spammers { "marked@example.net" }
        filter "refusing" phase connect match src <bad> disconnect "550 not you"
        filter "marking" phase mail-from match mail-from <spammers> junk
        filter "both" chain { "refusing", "marking", "chain" }
    """
    server = smtpd({"chain": command(chain)}, chain=["both"], extra_conf=conf, sink=sink)
    with Client(server.port, source="127.0.0.2") as client:
        assert client.reply() == ["550 not you"]
    for sender, hidden in (("alice@example.net", set()), ("marked@example.net", {"mail_from"})):
        begun = len(server.log)
        with Client(server.port) as client:
            client.greet()
            client.envelope(sender, "bob@example.org")
            assert client.data(b"Subject: x\r\n\r\nhello\r\n").startswith("250 ")
        server.wait_for_log("asked commit", start=begun)
        asked = {line.rpartition(" ")[2] for line in server.log[begun:] if "asked" in line}
        assert asked == {"connect", "ehlo", "mail_from", "rcpt_to", "data", "commit"} - hidden
    assert [message.headers["X-Spam"] for message in sink.wait_for(2)] == [None, "Yes"]


def test_debians_filters_do_their_work_in_one_chain(smtpd, sink, tmp_path):
    paths = [f"/usr/libexec/opensmtpd/filter-{n}" for n in ("senderscore", "dkimsign")]
    if not all(os.access(path, os.X_OK) for path in paths):
        unavailable("Debian: opensmtpd-filter-senderscore, opensmtpd-filter-dkimsign")
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    chain = write(
        tmp_path / "mx.toml",
        f'exec = "{paths[0]} -junkBelow 70"\ndeadline = 5\non_error = "proceed"',
        f'exec = "{paths[1]} -d example.net -s k1 -k {key}"',
    )
    server = smtpd({"mx": command(chain)}, sink=sink)
    with Client(server.port) as client:
        client.greet()
        client.envelope("alice@example.net", "bob@example.org")
        data = b"From: alice@example.net\r\nSubject: signed\r\n\r\nhello\r\n"
        assert client.data(data).startswith("250 ")
    assert "d=example.net" in sink.by_subject("signed").headers["DKIM-Signature"]
    wait_until(server.alive, 1, "smtpd")
