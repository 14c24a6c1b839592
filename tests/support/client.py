"""SMTP clients for the tests: one that sends and shows exact bytes, one for whole messages."""

from __future__ import annotations

import re
import smtplib
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_LAST_LINE = re.compile(rb"\d{3}(?: .*)?\Z")


class Client:
    """A raw SMTP client: it sends the bytes it is given and returns the lines that come back.

    Args:
        port: on 127.0.0.1.
        source: address to connect from; all of 127.0.0.0/8 is at hand.
        proxy: address to claim in a PROXY v2 header, for a listener with ``proxy-v2``.
        timeout: seconds that any reply may take.
    """

    def __init__(
        self,
        port: int,
        *,
        source: str = "127.0.0.1",
        proxy: str | None = None,
        timeout: float = 15.0,
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout, (source, 0))
        self._received = b""
        if proxy is not None:
            self.send(proxy_header(proxy))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send exactly these bytes."""
        self._socket.sendall(data)

    def reply(self) -> list[str]:
        """Read one reply: its lines, without CRLF; ``[]`` when the server has closed."""
        lines: list[str] = []
        while True:
            line = self._line()
            if line is None:
                return lines
            lines.append(line.decode("utf-8", "backslashreplace"))
            if _LAST_LINE.match(line):
                return lines

    def command(self, line: str | bytes) -> str:
        """Send a command line and return the last line of its reply, "" when the server closed."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return ([""] + self.reply())[-1]

    def closed(self) -> bool:
        """Wait until the server says something more (False) or closes the connection (True)."""
        return self._line() is None

    def greet(self, identity: str = "client.example.net") -> str:
        """Read the banner, say EHLO, and return the last line of its reply."""
        banner = self.reply()
        assert [line[:4] for line in banner] == ["220 "], banner
        return self.command(f"EHLO {identity}")

    def envelope(self, mail_from: str, *rcpt_to: str) -> None:
        """Send MAIL FROM and RCPT TO, each of which has to be accepted."""
        reply = self.command(f"MAIL FROM:<{mail_from}>")
        assert reply.startswith("250 "), reply
        for address in rcpt_to:
            reply = self.command(f"RCPT TO:<{address}>")
            assert reply.startswith("250 "), reply

    def data(self, content: bytes) -> str:
        """Send DATA and ``content``, dot-stuffed and terminated, and return the last reply line.

        A refused DATA returns its reply.
        """
        reply = self.command("DATA")
        if not reply.startswith("354"):
            return reply
        stuffed = re.sub(rb"(?m)^\.", b"..", content)
        end = b"" if stuffed.endswith(b"\r\n") or not stuffed else b"\r\n"
        return self.command(stuffed + end + b".")

    def quit(self) -> str:
        """Send QUIT, return the reply, and close."""
        reply = self.command("QUIT")
        self.close()
        return reply

    def close(self) -> None:
        """Close the connection (FIN)."""
        self._socket.close()

    def reset(self) -> None:
        """Close the connection by RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def shutdown(self) -> None:
        """Send FIN and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def _line(self) -> bytes | None:
        while b"\r\n" not in self._received:
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._received += data
        line, self._received = self._received.split(b"\r\n", 1)
        return line


def send_message(
    port: int,
    message: bytes,
    *,
    mail_from: str = "alice@example.net",
    rcpt_to: str | list[str] = "bob@example.org",
) -> None:
    """Send a message with smtplib.

    Raises:
        smtplib.SMTPException: the server refused something.
    """
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.net", timeout=15) as smtp:
        smtp.sendmail(mail_from, rcpt_to, message)


def proxy_header(address: str, port: int = 40000) -> bytes:
    """Return a PROXY v2 header that claims a TCP connection from an IPv4 or IPv6 address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    destination = "2001:db8::25" if ":" in address else "192.0.2.25"
    addresses = socket.inet_pton(family, address) + socket.inet_pton(family, destination)
    body = addresses + struct.pack("!HH", port, 25)
    protocol = 0x21 if family == socket.AF_INET6 else 0x11
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x21, protocol]) + struct.pack("!H", len(body)) + body
