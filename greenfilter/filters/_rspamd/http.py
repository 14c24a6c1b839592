"""HTTP as rspamd speaks it: one POST at a time on each connection, which is kept where it keeps it.

The standard library's client takes the time limit for each piece that comes, so that a server that
drips could hold a message for ever; and headers as text. So the request is written here.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, cast

from .._servers import Deadline, Server, ServiceError

Header = tuple[str, bytes]
Body = Callable[[], Iterable[bytes]]
"""Returns the pieces of a body, from the start each time."""

_IDLE_CONNECTIONS: Final = 16  # kept for each server
_CLEAN: Final = bytes(ord("?") if byte < 32 or byte == 127 else byte for byte in range(256))


class Response(NamedTuple):
    """What a server answered.

    Attributes:
        status: 200 where all is well.
        headers: with names in lower case; of repeated ones the last.
        body: whole.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Connections to some servers, kept between requests.

    Args:
        max_response_bytes: beyond what a request's own size is.
    """

    def __init__(self, max_response_bytes: int = 16 << 20) -> None:
        self._max_response_bytes = max_response_bytes
        self._lock = threading.Lock()
        self._idle: dict[Server, list[_Connection]] = {}

    def post(
        self,
        server: Server,
        path: str,
        headers: Sequence[Header],
        body: Body,
        size: int,
        deadline: Deadline,
    ) -> Response:
        """Post something, on a connection that was kept or a new one. Switches greenlets.

        Args:
            server: whom to ask.
            path: of the URL.
            headers: besides Content-Length; control characters in them become question marks.
            body: gives what to post.
            size: of the body, in bytes.
            deadline: for all of it.

        Raises:
            OSError: the server is away, or too slow.
            ServiceError: its answer is not HTTP, or cut off.
        """
        head = _head(server, path, [*headers, ("Content-Length", b"%d" % size)])
        limit = self._max_response_bytes + size
        while kept := self._take(server):
            try:
                return self._ask(server, kept, head, body, limit, deadline)
            except TimeoutError:
                raise
            except (OSError, ServiceError):
                # It was closed while it was idle, most likely; a new one tells.
                deadline.left()
        connection = _Connection(server.connect(deadline.left()))
        return self._ask(server, connection, head, body, limit, deadline)

    def _ask(
        self,
        server: Server,
        connection: _Connection,
        head: bytes,
        body: Body,
        limit: int,
        deadline: Deadline,
    ) -> Response:
        done = False
        try:
            response, done = connection.ask(head, body(), limit, deadline)
        finally:
            if not done or not self._keep(server, connection):
                connection.close()
        return response

    def _take(self, server: Server) -> _Connection | None:
        with self._lock:
            idle = self._idle.get(server)
            return idle.pop() if idle else None

    def _keep(self, server: Server, connection: _Connection) -> bool:
        with self._lock:
            idle = self._idle.setdefault(server, [])
            if len(idle) >= _IDLE_CONNECTIONS:
                return False
            idle.append(connection)
            return True


class _Connection:
    """One connection.

    Args:
        sock: connected.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def ask(
        self, head: bytes, body: Iterable[bytes], limit: int, deadline: Deadline
    ) -> tuple[Response, bool]:
        """Send a request; return the answer, and whether the connection lives on."""
        sent = self._send(head, body, deadline)
        source = _Source(self._sock, deadline)
        answer = http.client.HTTPResponse(cast("socket.socket", source), method="POST")
        try:
            answer.begin()
            data = answer.read(limit)
            if answer.read(1):
                raise ServiceError("answered more than is possible")
        except http.client.HTTPException as error:
            kind = type(error).__name__
            raise ServiceError(f"answered no HTTP, or not to the end: {kind}") from error
        if answer.length:
            raise ServiceError("hung up within its answer")
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, headers, data), sent and not answer.will_close

    def close(self) -> None:
        """End it."""
        self._sock.close()

    def _send(self, head: bytes, body: Iterable[bytes], deadline: Deadline) -> bool:
        """Send a request; return whether it went out whole."""
        try:
            for data in _joined(head, body):
                self._sock.settimeout(deadline.left())
                self._sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False  # it may have said why before it hung up
        return True


class _Source(io.RawIOBase):
    """Reads from a socket with a time limit for all of it; what HTTPResponse takes for a socket."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a file to read from."""
        return io.BufferedReader(self, 1 << 16)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read something, or nothing where the server has hung up."""
        self._sock.settimeout(self._deadline.left())
        return self._sock.recv_into(buffer)  # type: ignore[arg-type]


def _joined(head: bytes, body: Iterable[bytes]) -> Iterable[bytes]:
    """Put the head before the first piece, so that a small request is one packet."""
    for data in body:
        yield head + data
        head = b""
    if head:
        yield head


def _head(server: Server, path: str, headers: Iterable[Header]) -> bytes:
    host = str(server) if server.port else "localhost"
    lines = [f"POST {path} HTTP/1.1".encode(), b"Host: " + host.encode()]
    lines += [name.encode() + b": " + value.translate(_CLEAN) for name, value in headers]
    return b"\r\n".join([*lines, b"", b""])
