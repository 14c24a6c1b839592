"""What the clients of the recordings did, step by step, and how to do it again."""

from __future__ import annotations

import ast
import re
import socket
import ssl
import struct
from typing import TYPE_CHECKING, NamedTuple

import gevent
import gevent.socket
import gevent.ssl

from tests.testing.recordings import TRANSCRIPTS

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEP = re.compile(r" *[0-9.]+ \[(c\d+)\] (C:|S:|--) ?(.*)")
_ABRIDGED = re.compile(rb"(.*?) \.\.\.\((\d+) bytes\)\.\.\. (.*)", re.DOTALL)
_TIMEOUT = 20.0
_RST = struct.pack("ii", 1, 0)


class Step(NamedTuple):
    """One line of a ``.client`` file.

    Args:
        client: ``c1``, ``c2`` ...
        who: ``C:`` sends ``text``, ``S:`` is expected to, ``--`` is an event.
        text: as recorded.
    """

    client: str
    who: str
    text: str


def steps(server: str, name: str) -> Iterator[Step]:
    path = TRANSCRIPTS / server / f"{name}.client"
    for line in path.read_text(encoding="latin-1").split("\n"):
        found = _STEP.fullmatch(line)
        if found:
            yield Step(*found.groups())


def sent(text: str) -> bytes:
    """The bytes that a client sent. Long runs of one letter are abridged in the recordings."""
    quoted = text.encode("latin-1").decode("utf-8").replace('"', '\\"')
    data: bytes = ast.literal_eval(f'b"{quoted}"')
    if found := _ABRIDGED.fullmatch(data):
        begin, size, end = found[1], int(found[2]), found[3]
        assert begin[-1:] == end[:1], "more than one letter is left out"
        data = begin + begin[-1:] * (size - len(begin) - len(end)) + end
    return data


def said(text: str) -> str:
    """A reply line without the message id."""
    return re.sub(r"^(250 2\.0\.0) [0-9a-f]{8} ", r"\1 id ", text)


class Client:
    """A client with a real socket."""

    def __init__(self, port: int) -> None:
        self._sock = gevent.socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
        self._rest = b""
        self.replies: list[str] = []

    def do(self, step: Step) -> None:
        if step.who == "C:":
            self._send(sent(step.text))
        elif step.who == "S:":
            self.replies.append(said(self._line() or "(closed)"))
        elif step.text.startswith("tls "):
            self._start_tls(step.text.split()[1])
        elif step.text.startswith(("client ", "shutdown")):
            # All that was sent has arrived: the server is in this thread, and idle.
            gevent.idle()
            self._leave(step.text)
        elif step.text.startswith(("(server closed", "(connection lost")):
            while line := self._line():
                self.replies.append(said(line))

    def reply(self) -> str | None:
        """The last line of the next reply; None when the connection is closed."""
        while line := self._line():
            if line[3:4] != "-":
                return line
        return None

    def _send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError:
            return  # the server was faster to close than the recorded one

    def _line(self) -> str | None:
        while b"\n" not in self._rest:
            try:
                chunk = self._sock.recv(65536)
            except ConnectionError:
                return None
            if not chunk:
                return None
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        return line.removesuffix(b"\r").decode("latin-1")

    def _start_tls(self, version: str) -> None:
        context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = {
            "TLSv1.2": ssl.TLSVersion.TLSv1_2,
            "TLSv1.3": ssl.TLSVersion.TLSv1_3,
        }[version]
        self._sock = context.wrap_socket(self._sock)

    def _leave(self, how: str) -> None:
        if how.startswith("shutdown"):
            self._sock.shutdown(socket.SHUT_WR)
            return
        if "RST" in how:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self._sock.close()

    def close(self) -> None:
        self._sock.close()


def play(port: int, todo: list[Step]) -> dict[str, list[str]]:
    """Do what the recorded clients did, and give the replies that each got."""
    clients: dict[str, Client] = {}
    try:
        for step in todo:
            if step.text.startswith("connect from"):
                clients[step.client] = Client(port)
            else:
                clients[step.client].do(step)
    finally:
        for client in clients.values():
            client.close()
    return {name: client.replies for name, client in clients.items()}
