"""The receiving end: an SMTP server that keeps every message byte for byte."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from email.parser import BytesParser
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP, Envelope, Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from email.message import Message


# smtpd waits a second before it uses a connection again and five before it opens a second one to
# the same address. With many addresses to choose from it does neither.
ADDRESSES = [f"127.0.0.{number}" for number in range(1, 51)]


@dataclass(frozen=True)
class Received:
    """One message that arrived.

    Attributes:
        mail_from: sender without brackets; "" is the null sender.
        rcpt_tos: accepted recipients.
        content: the message as it was on the wire, without dot-stuffing; lines end in CRLF.
    """

    mail_from: str
    rcpt_tos: tuple[str, ...]
    content: bytes

    @property
    def headers(self) -> Message:
        """The header block, parsed."""
        return BytesParser().parsebytes(self.content, headersonly=True)

    @property
    def body(self) -> bytes:
        """What follows the first empty line."""
        return self.content.partition(b"\r\n\r\n")[2]


class Sink:
    """An SMTP server in a thread, on a free port of loopback addresses. Use it with ``with``.

    Args:
        refuse: recipient -> reply such as ``550 5.1.1 nobody``, given instead of acceptance.
        addresses: where it listens. smtpd takes another one for each recipient; with a single
            one, all recipients of a message arrive together.

    Attributes:
        port: the same on each address.
        messages: what arrived so far.
    """

    def __init__(
        self, refuse: Mapping[str, str] | None = None, addresses: Sequence[str] = ADDRESSES
    ) -> None:
        self.refuse = dict(refuse or {})
        self.addresses = addresses
        self.port = 0
        self.messages: list[Received] = []
        self._arrived = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.WriteTransport] = set()

    def __enter__(self) -> Sink:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_for(self, count: int, timeout: float = 15.0) -> list[Received]:
        """Wait until ``count`` messages have arrived in all, and return them all.

        Raises:
            AssertionError: fewer came within ``timeout`` seconds.
        """
        with self._arrived:
            done = self._arrived.wait_for(lambda: len(self.messages) >= count, timeout)
            assert done, f"{len(self.messages)} of {count} messages came in {timeout} s"
            return list(self.messages)

    def by_subject(self, subject: str, timeout: float = 15.0) -> Received:
        """Wait for the message with this Subject and return it.

        Raises:
            AssertionError: none came within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._arrived:
            while True:
                for message in self.messages:
                    if message.headers["Subject"] == subject:
                        return message
                if not self._arrived.wait(max(0.0, deadline - time.monotonic())):
                    subjects = [message.headers["Subject"] for message in self.messages]
                    raise AssertionError(f"no message {subject!r} in {timeout} s: {subjects}")

    def clear(self) -> None:
        """Forget the messages so far."""
        with self._arrived:
            self.messages.clear()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept or refuse a recipient (called by aiosmtpd)."""
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep a message (called by aiosmtpd)."""
        assert isinstance(envelope.original_content, bytes)
        sender = "" if envelope.mail_from in (None, "<>") else envelope.mail_from
        message = Received(sender, tuple(envelope.rcpt_tos), envelope.original_content)
        with self._arrived:
            self.messages.append(message)
            self._arrived.notify_all()
        return "250 OK"

    async def _listen(self) -> None:
        for address in self.addresses:
            server = await self._loop.create_server(lambda: _Server(self), address, self.port)
            self.port = server.sockets[0].getsockname()[1]
            self._servers.append(server)

    async def _shut_down(self) -> None:
        # A server that is closed while it accepts a connection leaks it: stop accepting first.
        for server in self._servers:
            self._loop.remove_reader(server.sockets[0].fileno())
        while self._connections or len(asyncio.all_tasks()) > 1:
            for transport in list(self._connections):
                transport.abort()
            await asyncio.sleep(0.001)
        for server in self._servers:
            server.close()


class _Server(SMTP):
    # Longer than any line that smtpd lets through (65,535 bytes).
    line_length_limit = 1024 * 1024

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink, data_size_limit=None, hostname="sink.example.org", loop=sink._loop)
        self._sink_connections = sink._connections

    def connection_made(self, transport: Any) -> None:
        self._sink_connections.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._sink_connections.discard(self.transport)
        super().connection_lost(error)
