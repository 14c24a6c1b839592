"""Whatever a filter's code does, the same smtpd serves the next message correctly."""

from __future__ import annotations

import re
import runpy
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.client import Client
from tests.support.filters import FILTERS, command
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd, version
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _tables() -> dict[str, object]:
    before, sys.argv = sys.argv, ["hostile.py", "none"]
    try:
        return runpy.run_path(str(FILTERS / "hostile.py"))
    finally:
        sys.argv = before


TABLES = _tables()
FAULTS: dict[str, tuple[object, str | None]] = TABLES["FAULTS"]  # type: ignore[assignment]
AT_COMMIT: dict[str, tuple[object, str | None]] = TABLES["AT_COMMIT"]  # type: ignore[assignment]
# Faults that a phase need not be tried with each: they end the worker, or take seconds.
ONCE = ["late", "late-native", "kept", "dropped", "never", "stubborn", "compute", "signals", "hub"]
ONCE += ["exit", "abort", "segv", "kill", "all-closed", "stack", "children", "closed", "logs"]
MODES = ["data_line", "lines", "message"]
# Where a server has the decision, it lets the command pass.
TAKES_REPORT = version() >= (7, 6)
ELSEWHERE = [fault for fault in FAULTS if fault not in ONCE]


class Hostile:
    """smtpd with the hostile filter; it counts the messages that have to arrive."""

    def __init__(self, server: Smtpd, sink: Sink) -> None:
        self.server = server
        self.sink = sink
        self.pids = self._own_pids()
        self.accepted: list[str] = []

    def _own_pids(self) -> list[int]:
        """smtpd's processes, and the supervisor."""
        filters = self.server.filter_pids()
        smtpd = [pid for pid in self.server.pids() if pid not in filters]
        return sorted([*smtpd, self.server.filter_pid("hostile")])

    def serves(self) -> None:
        """Assert that the same smtpd and the same supervisor serve the next message.

        That it arrives whole is asserted at the end, for all of them.
        """
        subject = f"next {len(self.accepted) + 1}"

        def delivered() -> bool:
            # While the next worker starts, policy may refuse.
            with Client(self.server.port) as client:
                client.reply()
                if not client.command("EHLO next.example.net").startswith("250 "):
                    return False
                for line in ("MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>"):
                    if not client.command(line).startswith("250 "):
                        return False
                reply = client.data(f"Subject: {subject}\r\n\r\n.dot\r\n".encode())
                return reply.startswith("250 ")

        wait_until(delivered, 15, "the next message to be accepted")
        self.accepted.append(subject)
        assert self._own_pids() == self.pids

    def replies(self, phase: str, fault: str) -> str:
        """Have the filter misbehave, and return the reply of the command it did so at."""
        name = f"{phase}.{fault}"
        with Client(self.server.port) as client:
            greeting = client.greet(name)
            if phase == "ehlo":
                return greeting
            if phase in ("noop", "rset", "quit"):
                return client.command(phase.upper())
            reply = client.command(f"MAIL FROM:<{name}@example.net>")
            if phase == "mail":
                return reply
            reply = client.command(f"RCPT TO:<{name}@example.org>")
            if phase == "rcpt":
                return reply
            if phase == "data":
                return client.command("DATA")
            content = f"Subject: {name}\r\n\r\nbefore\r\nhere\r\n.after\r\n"
            return client.data(content.encode())


@pytest.fixture(scope="module")
def servers(
    require_smtpd: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Hostile]]:
    """Give the server of a mode; each is started once."""
    started: dict[str, Hostile] = {}
    with ExitStack() as stack:

        def server(mode: str) -> Hostile:
            if mode not in started:
                disk = tmp_path_factory.mktemp("full")
                line = command("hostile", mode, disk, options=["--hang-timeout", "3"])
                sink = stack.enter_context(Sink())
                smtpd = stack.enter_context(Smtpd({"hostile": line}, sink=sink))
                started[mode] = Hostile(smtpd, sink)
            return started[mode]

        yield server
        for hostile in started.values():
            for subject in hostile.accepted:
                assert hostile.sink.by_subject(subject).body == b".dot\r\n"


@pytest.fixture
def hostile(servers: Callable[[str], Hostile]) -> Hostile:
    return servers("message")


def matches(reply: str, expected: str | None) -> bool:
    return reply.startswith(expected) if expected else reply[:1] in ("2", "3")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_mail_from(hostile, fault):
    reply = hostile.replies("mail", fault)
    assert matches(reply, FAULTS[fault][1]), reply
    hostile.serves()


@pytest.mark.parametrize("phase", ["ehlo", "rcpt", "data", "commit", "noop", "rset", "quit"])
def test_faults_at_other_phases(hostile, phase):
    wrong = {}
    for fault in ELSEWHERE + (list(AT_COMMIT) if phase == "commit" else []):
        expected = {**FAULTS, **AT_COMMIT}[fault][1]
        if fault == "report-old-server" and TAKES_REPORT and phase in ("data", "commit"):
            expected = None
        reply = hostile.replies(phase, fault)
        if not matches(reply, expected):
            wrong[fault] = reply
        hostile.serves()
    assert not wrong


@pytest.mark.parametrize("fault", ["kept", "never", "compute", "stubborn", "exit", "kill", "late"])
def test_faults_at_commit_that_take_time_or_the_worker(hostile, fault):
    assert hostile.replies("commit", fault).startswith("451 4.3.0 ")
    hostile.serves()


@pytest.mark.parametrize("fault", ["exception", "never", "stdout", "everywhere", "sys-exit"])
def test_faults_in_a_report_handler(hostile, fault):
    # Nobody waits for a report, and nothing that it does is seen by the client.
    assert hostile.replies("report", fault)[:4] in ("250 ", "451 ", "503 ")
    hostile.serves()


@pytest.mark.parametrize("octet", range(len(TABLES["CONNECT_FAULTS"])))  # type: ignore[arg-type]
def test_faults_at_connect(hostile, octet):
    expected = FAULTS[TABLES["CONNECT_FAULTS"][octet]][1]  # type: ignore[index]
    with Client(hostile.server.proxy_port, proxy=f"192.0.2.{octet}") as client:
        reply = client.reply()[-1]
        assert matches(reply, expected), reply
    hostile.serves()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", TABLES["LINES"])
def test_strange_lines(servers, mode, fault):
    hostile = servers(mode)
    reply = hostile.replies("lines", fault)
    assert re.match(r"250 |451 4\.3\.0 |554 5\.6\.0 |550 no", reply), reply
    if reply.startswith("250 "):
        body = hostile.sink.by_subject(f"lines.{fault}").body
        assert body.startswith(b"before\r\n")
        assert mode == "message" or body.endswith(b".after\r\n")
    hostile.serves()


@pytest.mark.parametrize("mode", MODES)
def test_a_full_disk_refuses_the_message_and_serves_the_next(servers, mode):
    hostile = servers(mode)
    content = b"Subject: large\r\n\r\n" + (b"x" * 900 + b"\r\n") * 3000
    with Client(hostile.server.port) as client:
        client.greet("large.example.net")
        client.envelope("a@example.net", "b@example.org")
        reply = client.data(content)
    # Only whole messages are kept on disk.
    assert reply.startswith("451 4.3.0 " if mode == "message" else "250 "), reply
    hostile.serves()
