"""Hands accepted messages to another server, as smtpd does, with its smtp-out reports."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import gevent.socket

from ..._smtpd.link import new_id
from ..._smtpd.wire import decode
from ...errors import GreenfilterError
from ...protocol._stuffing import stuff_message
from .address import reverse_dns, shown

if TYPE_CHECKING:
    from ..._smtpd.link import FilterLink
    from ..._smtpd.model import Message
    from .transcript import Transcript

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

    def run(self, host: str, port: int) -> None:
        """Deliver the message. Switches greenlets.

        Args:
            host: name or address of the server.
            port: its port.

        Raises:
            RelayError: it refused the message.
            OSError: it cannot be reached, or went away.
        """
        sock = gevent.socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS)
        with sock, sock.makefile("rb") as self._replies:
            self._sock = sock
            self._connected(sock)
            try:
                self._converse()
            finally:
                self._report("link-disconnect")
                self._transcript.disconnected(self.id)

    def _connected(self, sock: gevent.socket.socket) -> None:
        src, dst = shown(sock.getsockname()), shown(sock.getpeername())
        rdns, fcrdns = reverse_dns(sock.getpeername()[0])
        self._report("link-connect", rdns, fcrdns, src, dst)
        self._transcript.connected(self.id, dst, rdns, fcrdns, outgoing=True)

    def _converse(self) -> None:
        banner = self._hear()
        if not banner.startswith("2"):
            raise RelayError(f"the other server said: {banner}")
        self._report("link-greeting", banner[4:].partition(" ")[0])
        reply = self._identify("EHLO")
        if not reply.startswith("2"):
            reply = self._identify("HELO")
        if not reply.startswith("2"):
            self._give_up(reply)
        self._transaction()
        with suppress(OSError):  # the message is over there, however this ends
            self._say("QUIT")
            self._hear()

    def _identify(self, method: str) -> str:
        self._say(f"{method} {self._hostname}")
        self._report("link-identify", method, self._hostname)
        return self._hear()

    def _transaction(self) -> None:
        message = self._message
        self._say(f"MAIL FROM:<{message.mail_from}>")
        reply = self._hear()
        if not reply.startswith("2"):
            self._give_up(reply, reset=True)
        self._report_tx("tx-begin")
        self._report_tx("tx-mail", "ok", message.mail_from)
        replies = [(recipient, self._rcpt(recipient)) for recipient in message.rcpt_to]
        refused = [each for each in replies if not each[1].startswith("2")]
        if refused == replies:
            self._give_up(refused[0][1], reset=True)
        self._say("DATA")
        reply = self._hear()
        if not reply.startswith("3"):
            self._report_tx("tx-data", _result(reply))
            self._roll_back()
            self._give_up(reply, reset=True)
        self._report_tx("tx-data", "ok")
        body = stuff_message(message.data)
        self._sock.sendall(body)
        self._say(".")
        reply = self._hear()
        if not reply.startswith("2"):
            self._roll_back()
            self._give_up(reply)
        self._report_tx("tx-commit", str(len(body)))
        self._report_tx("tx-reset")
        taken = [recipient for recipient, reply in replies if reply.startswith("2")]
        self._transcript.relayed(self.id, message.message_id, taken, dict(refused))

    def _give_up(self, reply: str, reset: bool = False) -> NoReturn:
        if reset:
            self._say("RSET")
            self._hear()
        self._say("QUIT")
        self._hear()
        raise RelayError(f"the other server said: {reply}")

    def _rcpt(self, recipient: str) -> str:
        self._say(f"RCPT TO:<{recipient}>")
        envelope = random.randrange(1, 1 << 32)
        self._report_tx("tx-envelope", f"{self._message.message_id}{envelope:08x}")
        reply = self._hear()
        if not reply.startswith("2"):
            # smtpd says that all is over, and then goes on with the same message id.
            self._roll_back()
        self._report_tx("tx-rcpt", _result(reply), recipient)
        return reply

    def _roll_back(self) -> None:
        self._report_tx("tx-rollback")
        self._report_tx("tx-reset")

    def _say(self, line: str) -> None:
        self._report("protocol-client", line)
        self._transcript.client(self.id, line)
        self._sock.sendall(f"{line}\r\n".encode("utf-8", "surrogateescape"))

    def _hear(self) -> str:
        """Read a reply, and return its last line."""
        while True:
            raw = self._replies.readline(_MAX_REPLY_LINE_BYTES)
            if not raw.endswith(b"\n"):
                raise ConnectionError("the other server closed the connection")
            line = decode(raw.rstrip(b"\r\n"))
            self._report("protocol-server", line)
            self._transcript.server(self.id, line)
            if line[3:4] != "-":
                return line

    def _report(self, event: str, *fields: str) -> None:
        self._link.report("smtp-out", event, self.id, *fields)

    def _report_tx(self, event: str, *fields: str) -> None:
        self._report(event, self._message.message_id, *fields)


def _result(reply: str) -> str:
    return {"2": "ok", "4": "tempfail"}.get(reply[:1], "permfail")
