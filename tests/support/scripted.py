"""A TCP server that says what a test has it say: for the faults that no real server has."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

Script = Callable[["Connection"], None]


class Connection:
    """One client of the server.

    Attributes:
        number: of the connection, from 0.
        sock: its socket.
        received: what has come and was not taken by read_request.
        requests: those that were.
    """

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number = number
        self.sock = sock
        self.received = b""
        self.requests: list[bytes] = []

    def read_until(self, end: bytes, count: int = 1) -> bytes:
        """Read until ``end`` has come ``count`` times, or the client has left; return it all."""
        while self.received.count(end) < count:
            data = self.sock.recv(1 << 16)
            if not data:
                break
            self.received += data
        return self.received

    def read_request(self) -> bytes:
        """Read one HTTP request; return it, and forget it."""
        head = self.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")[0]
        size = 0
        for line in head.lower().splitlines():
            if line.startswith(b"content-length:"):
                size = len(head) + 4 + int(line.partition(b":")[2])
        while len(self.received) < size:
            data = self.sock.recv(1 << 16)
            if not data:
                break
            self.received += data
        request, self.received = self.received[:size], self.received[size:]
        self.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        """Send something."""
        self.sock.sendall(data)

    def reset(self) -> None:
        """Reset the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


class ScriptedServer:
    """A server on a free port of 127.0.0.1, each connection in a thread. Use it with ``with``.

    Args:
        script: deals with a connection, which is closed when it returns.

    Attributes:
        connections: all so far.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self.stopping = threading.Event()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                connection = Connection(len(self.connections), sock)
                self.connections.append(connection)
                self._start(lambda connection=connection: self._serve(connection))  # type: ignore[misc]

    def _serve(self, connection: Connection) -> None:
        with connection.sock, contextlib.suppress(OSError):
            self._script(connection)
