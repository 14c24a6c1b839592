"""Hands accepted messages to another server, as smtpd does, with its smtp-out reports."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import gevent.socket

from ..errors import GreenfilterError
from ..testing._link import new_id
from ..testing._wire import decode

if TYPE_CHECKING:
    from ..testing import Message
    from ..testing._link import FilterLink
    from ._transcript import Transcript

_TIMEOUT_SECONDS = 60.0
_MAX_REPLY_LINE_BYTES = 4096


class RelayError(GreenfilterError):
    """The other server did not take the message."""


class Relay:
    """One connection to the other server, for one message.

    Args:
        link: to the filter.
        transcript: told what happens.
        hostname: smtpd's name.
        message: to be handed over.
    """

    def __init__(
        self, link: FilterLink, transcript: Transcript, hostname: str, message: Message
    ) -> None:
        self.id = new_id()
        self._link = link
        self._transcript = transcript
        self._hostname = hostname
        self._message = message
        self._tx_open = False

    def run(self, host: str, port: int, rdns: str) -> None:
        """Deliver the message. Switches greenlets.

        Args:
            host: name or address of the server.
            port: its port.
            rdns: its name in DNS.

        Raises:
            RelayError: it refused the message.
            OSError: it cannot be reached, or went away.
        """
        sock = gevent.socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS)
        with sock, sock.makefile("rb") as self._replies:
            self._sock = sock
            self._connected(sock, rdns)
            try:
                self._converse()
            finally:
                self._report("link-disconnect")
                self._transcript.disconnected(self.id)

    def _connected(self, sock: gevent.socket.socket, rdns: str) -> None:
        src, dst = shown(sock.getsockname()), shown(sock.getpeername())
        self._report("link-connect", rdns, "pass", src, dst)
        self._transcript.connected(self.id, dst, rdns, "pass", outgoing=True)

    def _converse(self) -> None:
        banner = self._hear(2)
        self._report("link-greeting", banner[4:].partition(" ")[0])
        if not self._identify("EHLO"):
            self._identify("HELO", required=True)
        try:
            self._transaction()
        except RelayError:
            if self._tx_open:
                self._roll_back()
            self._say("RSET")
            self._hear(2)
            self._say("QUIT")
            self._hear()
            raise
        self._say("QUIT")
        self._hear()

    def _identify(self, method: str, required: bool = False) -> bool:
        self._say(f"{method} {self._hostname}")
        self._report("link-identify", method, self._hostname)
        return self._hear(2 if required else 0).startswith("2")

    def _transaction(self) -> None:
        message = self._message
        self._say(f"MAIL FROM:<{message.mail_from}>")
        self._hear(2)
        self._tx_open = True
        self._report_tx("tx-begin")
        self._report_tx("tx-mail", "ok", message.mail_from)
        refused = [recipient for recipient in message.rcpt_to if not self._rcpt(recipient)]
        if len(refused) == len(message.rcpt_to):
            self._tx_open = False
            raise RelayError("no recipient was taken")
        self._say("DATA")
        try:
            self._hear(3)
        except RelayError:
            self._report_tx("tx-data", "permfail")
            raise
        self._report_tx("tx-data", "ok")
        body = stuffed(message.data)
        self._sock.sendall(body)
        self._say(".")
        self._hear(2)
        self._tx_open = False
        self._report_tx("tx-commit", str(len(body)))
        self._report_tx("tx-reset")
        if refused:
            raise RelayError(f"recipients refused: {', '.join(refused)}")

    def _rcpt(self, recipient: str) -> bool:
        self._say(f"RCPT TO:<{recipient}>")
        envelope = random.randrange(1, 1 << 32)
        self._report_tx("tx-envelope", f"{self._message.message_id}{envelope:08x}")
        reply = self._hear()
        if reply.startswith("2"):
            self._report_tx("tx-rcpt", "ok", recipient)
            return True
        # smtpd says that all is over, and then goes on with the same message id.
        self._roll_back()
        result = "tempfail" if reply.startswith("4") else "permfail"
        self._report_tx("tx-rcpt", result, recipient)
        return False

    def _roll_back(self) -> None:
        self._report_tx("tx-rollback")
        self._report_tx("tx-reset")

    def _say(self, line: str) -> None:
        self._report("protocol-client", line)
        self._transcript.client(self.id, line)
        self._sock.sendall(f"{line}\r\n".encode("utf-8", "surrogateescape"))

    def _hear(self, wanted: int = 0) -> str:
        """Read a reply, and give its last line; it has to begin with the digit ``wanted``."""
        while True:
            raw = self._replies.readline(_MAX_REPLY_LINE_BYTES)
            if not raw.endswith(b"\n"):
                raise ConnectionError("the other server closed the connection")
            line = decode(raw.rstrip(b"\r\n"))
            self._report("protocol-server", line)
            self._transcript.server(self.id, line)
            if line[3:4] != "-":
                break
        if wanted and not line.startswith(str(wanted)):
            raise RelayError(f"the other server said: {line}")
        return line

    def _report(self, event: str, *fields: str) -> None:
        self._link.report("smtp-out", event, self.id, *fields)

    def _report_tx(self, event: str, *fields: str) -> None:
        self._report(event, self._message.message_id, *fields)


def stuffed(data: bytes) -> bytes:
    """Dot-stuff a message whose lines end in CRLF (RFC 5321, 4.5.2)."""
    data = data.replace(b"\r\n.", b"\r\n..")
    return b"." + data if data.startswith(b".") else data


def shown(address: tuple[str | int, ...]) -> str:
    """Give an address and port as smtpd writes them."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
