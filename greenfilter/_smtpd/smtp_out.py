"""An outgoing session: smtpd as the client of another server. It only sends reports."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from .link import FilterLink, new_id
from .wire import Version, vis

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXTENSIONS = ("8BITMIME", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES")
_MESSAGE_ID = re.compile("[0-9a-f]{8}")
_REFUSALS = {
    "mail-from": "550 5.7.1 sender refused",
    "rcpt-to": "550 5.1.1 no such user",
    "data": "554 5.7.1 no data",
    "commit": "554 5.7.1 content refused",
}


class OutSession:
    """A connection of smtpd to another server. Made by ``FakeSmtpd.connect_out()``.

    Every method but the properties switches greenlets.

    Attributes:
        id: session id, 16 hexadecimal digits.
        closed: whether the connection is closed.
    """

    def __init__(self, link: FilterLink, version: Version, hostname: str, server: str) -> None:
        self.id = new_id()
        self.closed = False
        self._link = link
        self._version = version
        self._hostname = hostname
        self._server = server
        self._sent_bytes = 0

    def connect(self, src: str, dst: str, rdns: str, fcrdns: str) -> None:
        """Connect and read the banner. ``FakeSmtpd.connect_out()`` has done it."""
        self._report("link-connect", rdns, fcrdns, src, dst)
        self._hear(f"220 {self._server} ESMTP")
        self._report("link-greeting", self._server)
        self._link.flush()

    def identify(self, identity: str | None = None, method: str = "EHLO") -> None:
        """Send HELO, EHLO or (to an LMTP server) LHLO; by default with smtpd's own name."""
        identity = identity or self._hostname
        self._command(f"{method} {identity}")
        self._report("link-identify", method, identity)
        lines = [self._server]
        if method != "HELO":
            lines += _EXTENSIONS
        for line in lines[:-1]:
            self._hear(f"250-{line}")
        self._hear(f"250 {lines[-1]}")
        self._link.flush()

    def tls(self, ciphers: str = "TLSv1.3:TLS_AES_256_GCM_SHA384:256") -> None:
        """Start TLS and identify again."""
        self._command("STARTTLS")
        self._hear("220 go")
        # The order of the next two is one server's: 7.8 says EHLO first.
        if self._version < (0, 7):
            self._report("link-tls", ciphers)
            self.identify()
            return
        self.identify()
        self._report("link-tls", ciphers)
        self._link.flush()

    def auth(self, username: str, ok: bool = True) -> None:
        """Authenticate to the other server."""
        self._command("AUTH PLAIN ********")
        self._hear("235 2.7.0 ok" if ok else "535 5.7.8 no")
        self._report("link-auth", "pass" if ok else "fail", vis(username, self._version))
        self._link.flush()

    def tx(
        self,
        mail_from: str,
        rcpt_to: str | Sequence[str],
        size: int = 353,
        refused: str = "",
        message_id: str | None = None,
    ) -> str | None:
        """Hand a message over.

        Args:
            mail_from: sender, "" for the null sender.
            rcpt_to: recipients.
            size: bytes sent; tx-commit adds them up over a connection.
            refused: where the other server refuses it: ``mail-from``, ``rcpt-to`` (the first
                recipient only), ``data`` or ``commit``.
            message_id: 8 hexadecimal digits. smtpd relays a message under the id that it came in
                with, ``session.delivered[0].message_id``; by default a new one, as for a bounce.

        Returns:
            smtpd's message id; None when there was no transaction to have one.

        Raises:
            ValueError: smtpd has no such message id.
        """
        if message_id is None:
            message_id = f"{random.randrange(1, 1 << 32):08x}"
        elif not _MESSAGE_ID.fullmatch(message_id):
            raise ValueError(f"message_id={message_id!r} is not 8 hexadecimal digits")
        self._command(f"MAIL FROM:<{mail_from}>")
        if refused == "mail-from":
            self._hear(_REFUSALS[refused])
            self._reset()
            return None
        self._hear("250 2.1.0 ok")
        self._report("tx-begin", message_id)
        self._report("tx-mail", message_id, "ok", mail_from)
        recipients = [rcpt_to] if isinstance(rcpt_to, str) else list(rcpt_to)
        for index, recipient in enumerate(recipients):
            self._rcpt(message_id, recipient, refused == "rcpt-to" and index == 0)
        self._command("DATA")
        if refused == "data":
            self._hear(_REFUSALS[refused])
            self._report("tx-data", message_id, "permfail")
            self._roll_back(message_id)
            self._reset()
            return message_id
        self._hear("354 go")
        self._report("tx-data", message_id, "ok")
        self._command(".")
        if refused == "commit":
            self._hear(_REFUSALS[refused])
            self._roll_back(message_id)
        else:
            self._hear("250 2.0.0 accepted")
            self._sent_bytes += size
            self._report("tx-commit", message_id, str(self._sent_bytes))
            self._report("tx-reset", message_id)
        self._link.flush()
        return message_id

    def quit(self) -> None:
        """Send QUIT and close the connection."""
        self._command("QUIT")
        self._hear("221 bye")
        self.disconnect()

    def disconnect(self) -> None:
        """Let the other server close the connection: no tx-reset, whatever was open."""
        if not self.closed:
            self._report("link-disconnect")
            self._link.flush()
        self.closed = True

    def _rcpt(self, message_id: str, recipient: str, refused: bool) -> None:
        self._command(f"RCPT TO:<{recipient}>")
        envelope = random.randrange(1, 1 << 32)
        self._report("tx-envelope", message_id, f"{message_id}{envelope:08x}")
        if not refused:
            self._hear("250 2.1.5 ok")
            self._report("tx-rcpt", message_id, "ok", recipient)
            return
        self._hear(_REFUSALS["rcpt-to"])
        # smtpd says that all is over, and then goes on with the same message id.
        self._roll_back(message_id)
        self._report("tx-rcpt", message_id, "permfail", recipient)

    def _roll_back(self, message_id: str) -> None:
        self._report("tx-rollback", message_id)
        self._report("tx-reset", message_id)

    def _reset(self) -> None:
        self._command("RSET")
        self._hear("250 ok")
        self._link.flush()

    def _command(self, line: str) -> None:
        if self.closed:
            raise ConnectionError("the connection is closed")
        self._report("protocol-client", line)

    def _hear(self, line: str) -> None:
        self._report("protocol-server", line)

    def _report(self, event: str, *fields: str) -> None:
        self._link.report("smtp-out", event, self.id, *fields)
