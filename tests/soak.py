"""Faults under load: ``python -m tests.soak [--seconds 60]``.

Sessions, as many as asked for at a time, bring messages to the real smtpd, while the worker of
its filter is killed every two seconds and its code is loaded again every five. At the end each
message has either arrived whole, once, and with the filter's edit, or its client was told 4xx.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.support.client import Client
from tests.support.filters import command
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd, missing
from tests.support.wait import wait_until

KILL_SECONDS = 2.0
RELOAD_SECONDS = 5.0
_SETTLE_SECONDS = 60.0
# Longer than any reply takes, shorter than the deadlines of the filter.
_PATIENCE = 10.0
_EDIT = b"-- edited\r\n"
_NAME = "soak"


@dataclass
class Result:
    """What the clients saw and what arrived.

    Attributes:
        accepted: subject -> body, of messages that smtpd took.
        refused: messages that were refused with a 4xx, at whatever command.
        sessions: those that had a banner.
        cut: connections that ended without a reply.
        other: replies that are none of these.
        wrong: what must not be: messages lost, truncated, changed, or there twice.
        kills, reloads: how often.
        slowest: seconds that the slowest reply took.
    """

    accepted: dict[str, bytes] = field(default_factory=dict)
    refused: int = 0
    sessions: int = 0
    cut: int = 0
    other: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    reloads: int = 0
    slowest: float = 0.0

    def lines(self) -> list[str]:
        """Give the figures as text."""
        return [
            f"accepted and delivered whole, once: {len(self.accepted) - len(self.wrong)}",
            f"refused with 4xx: {self.refused}",
            f"sessions: {self.sessions}",
            f"connections cut: {self.cut}",
            f"other replies: {len(self.other)} {self.other[:3]}",
            f"lost, truncated, changed or twice: {len(self.wrong)} {self.wrong[:3]}",
            f"workers killed: {self.kills}, reloads: {self.reloads}",
            f"slowest reply: {self.slowest:.2f} s",
        ]


class _Soak:
    def __init__(self, server: Smtpd, end: float) -> None:
        self.server = server
        self.end = end
        self.result = Result()
        self._lock = threading.Lock()
        self._numbers = iter(range(10**9))
        # smtpd lets five connections wait; the system drops more, and their clients do not know.
        self._door = threading.Semaphore(4)

    def client(self) -> None:
        """Bring messages until the end."""
        while time.monotonic() < self.end:
            try:
                with self._door:
                    client = Client(self.server.port, timeout=_PATIENCE)
                    greeting = client.reply()
                with client:
                    self._session(client, greeting)
            except (OSError, AssertionError) as error:
                with self._lock:
                    self.result.other.append(repr(error))

    def _session(self, client: Client, greeting: list[str]) -> None:
        with self._lock:
            self.result.sessions += 1
        if not self._went_on((greeting or [""])[-1], "220"):
            return
        if not self._went_on(client.command("EHLO soak.example.net"), "250"):
            return
        for _ in range(random.randrange(1, 5)):
            if time.monotonic() > self.end or not self._message(client):
                return
        client.command("QUIT")

    def _message(self, client: Client) -> bool:
        """Bring one message; give whether the session can go on."""
        with self._lock:
            subject = f"soak-{next(self._numbers)}"
        lines = [b"." * random.randrange(3) + os.urandom(20).hex().encode() for _ in range(40)]
        body = b"".join(line + b"\r\n" for line in lines)
        sender, recipient = f"{subject}@example.net", "bob@example.org"
        for line, code in (
            (f"MAIL FROM:<{sender}>", "250"),
            (f"RCPT TO:<{recipient}>", "250"),
            ("DATA", "354"),
        ):
            begun = time.monotonic()
            reply = client.command(line)
            self._time(begun)
            if not self._went_on(reply, code):
                return bool(reply) and client.command("RSET").startswith("250")
        content = f"Subject: {subject}\r\n\r\n".encode() + body
        stuffed = re.sub(rb"(?m)^\.", b"..", content)
        half = len(stuffed) // 2
        client.send(stuffed[:half])
        time.sleep(random.random() * 0.3)
        client.send(stuffed[half:])
        begun = time.monotonic()
        reply = client.command(".")
        self._time(begun)
        if self._went_on(reply, "250"):
            with self._lock:
                self.result.accepted[subject] = body
        return bool(reply)

    def _went_on(self, reply: str, code: str) -> bool:
        if reply.startswith(code):
            return True
        with self._lock:
            if reply.startswith("4"):
                self.result.refused += 1
            elif not reply:
                self.result.cut += 1
            else:
                self.result.other.append(reply)
        return False

    def _time(self, begun: float) -> None:
        self.result.slowest = max(self.result.slowest, time.monotonic() - begun)

    def trouble(self) -> None:
        """Kill and reload until the end."""
        supervisor = self.server.filter_pid(_NAME)
        next_kill = time.monotonic() + KILL_SECONDS
        next_reload = time.monotonic() + RELOAD_SECONDS
        while time.monotonic() < self.end:
            time.sleep(0.02)
            now = time.monotonic()
            if now >= next_kill:
                next_kill += KILL_SECONDS
                for pid in set(self.server.filter_pids()) - {supervisor}:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                self.result.kills += 1
            if now >= next_reload:
                next_reload += RELOAD_SECONDS
                os.kill(supervisor, signal.SIGHUP)
                self.result.reloads += 1


def soak(seconds: float, sessions: int = 200) -> Result:
    """Run it.

    Args:
        seconds: how long clients come.
        sessions: at a time.

    Raises:
        AssertionError: smtpd or the supervisor is not the same as before.
    """
    with Sink() as sink, Smtpd({_NAME: command(_NAME)}, sink=sink) as server:
        own = _own_pids(server)
        run = _Soak(server, time.monotonic() + seconds)
        threads = [threading.Thread(target=run.client) for _ in range(sessions)]
        threads.append(threading.Thread(target=run.trouble))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        result = run.result
        wait_until(
            lambda: len(sink.messages) >= len(result.accepted), _SETTLE_SECONDS, "the deliveries"
        )
        _compare(result, sink)
        assert _own_pids(server) == own, "smtpd's processes have changed"
    return result


def _own_pids(server: Smtpd) -> list[int]:
    filters = server.filter_pids()
    smtpd = [pid for pid in server.pids() if pid not in filters]
    return sorted([*smtpd, server.filter_pid(_NAME)])


def _compare(result: Result, sink: Sink) -> None:
    """Note what did not arrive as it should."""
    arrived = Counter(str(message.headers["Subject"]) for message in sink.messages)
    bodies = {str(message.headers["Subject"]): message.body for message in sink.messages}
    for subject, body in result.accepted.items():
        if arrived[subject] != 1:
            result.wrong.append(f"{subject} arrived {arrived[subject]} times")
        elif bodies[subject] != body + _EDIT:
            result.wrong.append(f"{subject} was changed")
    result.wrong += [
        f"{subject} arrived though it was refused"
        for subject in arrived
        if subject not in result.accepted
    ]


def main() -> None:
    """Entry point of ``python -m tests.soak``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--sessions", type=int, default=200)
    options = parser.parse_args()
    if (reason := missing()) is not None:
        sys.exit(reason)
    result = soak(options.seconds, options.sessions)
    print("\n".join(result.lines()))
    if result.wrong or result.cut or result.other:
        sys.exit("failed")


if __name__ == "__main__":
    main()
