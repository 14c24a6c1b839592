"""smtpd's side of a recorder: a socket that is its fds 0 and 1."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

GREENFILTER = [sys.executable, "-m", "greenfilter"]
HANDSHAKE = (
    b"config|smtpd-version|7.8.0\nconfig|protocol|0.7\nconfig|subsystem|smtp-in\nconfig|ready\n"
)
REGISTRATION = b"register|report|smtp-in|link-disconnect\nregister|ready\n"


def record(log: Path, *command: str, options: tuple[str, ...] = ()) -> list[str]:
    return [*GREENFILTER, "record", "-o", str(log), *options, "--", *command]


def python(code: str) -> tuple[str, str, str]:
    """The command of a filter that is a piece of Python."""
    return (sys.executable, "-c", code)


class Recorder:
    """A running recorder; use it with ``with``, in which it has to end."""

    def __init__(self, command: list[str]) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20)
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE
            )
        self.errors = ""

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        try:
            self.errors = self.process.communicate(timeout=20)[1].decode()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(65536)
            if not piece:
                return data
            data += piece
        return data

    def rest(self) -> bytes:
        """Everything up to the end of file."""
        data = b""
        while piece := self.socket.recv(65536):
            data += piece
        return data

    def stop(self) -> bytes:
        """End of file for the filter; return what it still says."""
        self.socket.shutdown(socket.SHUT_WR)
        return self.rest()
