"""Plays smtpd for one filter process: handshake, traffic, and the check of what came back."""

from __future__ import annotations

import select
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import procinfo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .wire import Traffic

CONFIG = b"""\
config|smtpd-version|7.8.0-portable
config|protocol|0.7
config|smtp-session-timeout|300
config|subsystem|smtp-in
config|admd|mx.example.org
config|ready
"""
CHUNK = 128 * 1024
SILENCE = 30.0
"""Seconds without a byte from the filter after which a run has failed."""


class WrongReplies(Exception):
    """The filter answered too little, too much, or something else."""


class NotStarted(Exception):
    """The filter ended or fell silent before ``register|ready``."""


@dataclass(frozen=True)
class Run:
    """One run: seconds by the clock, and processor seconds of the filter and of the driver."""

    seconds: float
    filter_cpu: float = 0.0
    driver_cpu: float = 0.0


class FilterProcess:
    """A filter started as smtpd starts it, fds 0 and 1 one socket and fd 2 a file.

    Args:
        command: program and arguments.
        log: where fd 2 goes.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        self.socket, theirs = socket.socketpair()
        started = time.perf_counter()
        with theirs, log.open("wb") as stderr:
            fd = theirs.fileno()
            self.process = subprocess.Popen(command, stdin=fd, stdout=fd, stderr=stderr)
        try:
            self.hooks = self._handshake()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - started
        self.received = b""
        self._inbox = bytearray()

    def __enter__(self) -> FilterProcess:
        """The process, ready."""
        return self

    def __exit__(self, *exc: object) -> None:
        """End the process."""
        self.close()

    def pids(self) -> list[int]:
        """The process and its children."""
        return procinfo.tree(self.process.pid)

    def close(self) -> None:
        """EOF, smtpd's order to stop; a filter that does not obey is killed."""
        self.socket.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def exchange(self, traffic: Traffic) -> Run:
        """Send ``traffic``, take all replies, check them.

        Raises:
            WrongReplies: a reply is missing, wrong, out of order or too much.
        """
        self._nothing_waits()
        inbox = self._room(2 * max(len(traffic.expected), len(traffic.outgoing)) + CHUNK)
        pids = self.pids()
        cpu, own, started = procinfo.cpu_seconds(pids), time.process_time(), time.perf_counter()
        received, sent = self._pump(traffic, inbox)
        run = Run(
            time.perf_counter() - started,
            procinfo.cpu_seconds(pids) - cpu,
            time.process_time() - own,
        )
        self.send(traffic.outgoing[sent:])  # reports after the last reply
        self.received = bytes(inbox[:received])
        if not traffic.markers:
            check(self.received, traffic.expected)
        self._nothing_waits()
        return run

    def send(self, data: bytes) -> None:
        """Send ``data`` whole."""
        self.socket.setblocking(True)
        self.socket.sendall(data)

    def receive_lines(self, lines: int, timeout: float = SILENCE) -> list[bytes]:
        """The next ``lines`` lines.

        Raises:
            WrongReplies: more than that, or nothing for ``timeout`` seconds.
        """
        self.socket.settimeout(timeout)
        data = b""
        while data.count(b"\n") < lines:
            try:
                chunk = self.socket.recv(CHUNK)
            except TimeoutError:
                raise WrongReplies(f"{data.count(10)} of {lines} replies, then silence") from None
            if not chunk:
                raise WrongReplies(f"the filter ended; its log: {self.tail()}")
            data += chunk
        if data.count(b"\n") > lines or not data.endswith(b"\n"):
            raise WrongReplies(f"{data.count(10)} replies instead of {lines}")
        return data.splitlines()

    def tail(self) -> str:
        """The end of the filter's log."""
        return self.log.read_text(errors="replace")[-2000:]

    def _pump(self, traffic: Traffic, inbox: bytearray) -> tuple[int, int]:
        sock, goal = self.socket, traffic.goal
        sock.setblocking(False)
        outgoing, room = memoryview(traffic.outgoing), memoryview(inbox)
        gates = iter([*traffic.gates, (0, goal + 1)])
        end, need = next(gates)
        allowed = sent = received = done = 0
        poll = select.poll()
        poll.register(sock)
        while done < goal:
            while need <= done:
                allowed = end
                end, need = next(gates)
            moved = False
            if sent < allowed:
                try:
                    sent += sock.send(outgoing[sent : min(allowed, sent + CHUNK)])
                    moved = True
                except BlockingIOError:
                    pass
            try:
                size = sock.recv_into(room[received : received + CHUNK])
            except BlockingIOError:
                if not moved:
                    poll.modify(sock, select.POLLIN | (select.POLLOUT if sent < allowed else 0))
                    if not poll.poll(SILENCE * 1000):
                        raise WrongReplies(
                            f"{done} of {goal} received, then silence for {SILENCE} s; "
                            f"the filter's log: {self.tail()}"
                        ) from None
                continue
            if not size:
                raise WrongReplies(f"the filter ended; its log: {self.tail()}")
            done += _count(inbox, received, received + size, traffic.markers)
            received += size
        return received, sent

    def _room(self, size: int) -> bytearray:
        # Kept between runs: pages that are touched first while the clock runs cost more than recv.
        if len(self._inbox) < size:
            self._inbox = bytearray(b"\1") * size
        return self._inbox

    def _nothing_waits(self) -> None:
        self.socket.setblocking(False)
        try:
            data = self.socket.recv(1000)
        except BlockingIOError:
            return
        raise WrongReplies(f"a line that nobody asked for: {data!r}")

    def _handshake(self) -> frozenset[str]:
        self.socket.settimeout(SILENCE)
        answer = b""
        try:
            self.socket.sendall(CONFIG)
            while not answer.endswith(b"register|ready\n"):
                chunk = self.socket.recv(CHUNK)
                if not chunk:
                    raise NotStarted(self.tail())
                answer += chunk
        except OSError as error:
            raise NotStarted(f"{error}: {self.tail()}") from error
        lines = answer.decode().splitlines()
        return frozenset(line.split("|")[3] for line in lines if "|smtp-in|" in line)


def check(received: bytes, expected: bytes) -> None:
    """Compare all that came with all that should have.

    Raises:
        WrongReplies: some session's lines differ, with the first difference.
    """
    if received == expected:
        return
    got, wanted = _by_session(received), _by_session(expected)
    for sid, lines in wanted.items():
        if got.get(sid) != lines:
            pairs = zip([*got.get(sid, []), b"nothing"], [*lines, b"nothing"], strict=False)
            wrong, right = next(pair for pair in pairs if pair[0] != pair[1])
            raise WrongReplies(f"{wrong!r} instead of {right!r}")
    if len(got) > len(wanted):
        raise WrongReplies(f"lines for unknown sessions: {set(got) - set(wanted)}")


def _by_session(data: bytes) -> dict[bytes, list[bytes]]:
    sessions: dict[bytes, list[bytes]] = {}
    for line in data.split(b"\n"):
        sid = line.split(b"|", 2)[1] if b"|" in line else line
        sessions.setdefault(sid, []).append(line)
    return sessions


def _count(inbox: bytearray, start: int, end: int, markers: tuple[bytes, ...]) -> int:
    if not markers:
        return end - start
    return sum(inbox.count(m, max(0, start - len(m) + 1), end) for m in markers)
