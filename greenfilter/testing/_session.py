"""A client of FakeSmtpd."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gevent.lock import RLock

from .._smtpd.oracle import SmtpdWouldHang
from .._smtpd.smtp_in import SmtpIn
from .._smtpd.wire import decode
from ..protocol._credentials import redact_auth
from ..protocol._stuffing import stuff_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._smtpd.link import FilterLink
    from .._smtpd.model import Listener, Message, Peer
    from .._smtpd.wire import Version

TLS_1_3 = "TLSv1.3:TLS_AES_256_GCM_SHA384:256"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client sees after a command.

    Args:
        lines: reply lines without CRLF; none when the connection just closes.
        message: what was delivered (CRLF, not dot-stuffed), after the final dot was accepted.
    """

    lines: tuple[str, ...]
    message: bytes | None = None

    @property
    def code(self) -> int:
        """SMTP reply code of the last line; 0 when nothing was said."""
        return int(self.lines[-1][:3]) if self.lines else 0

    @property
    def text(self) -> str:
        """Reply lines without their codes."""
        return "\n".join(line[4:] for line in self.lines)

    @property
    def ok(self) -> bool:
        """Whether the code is 2xx or 3xx."""
        return 200 <= self.code < 400

    def rejected(self, code: int | None = None, text: str = "") -> bool:
        """Return whether the client was refused: ``assert reply.rejected(550, "listed")``.

        Args:
            code: with exactly this; None for any 4xx or 5xx.
            text: and with this in the text.
        """
        refused = 400 <= self.code < 600
        return refused and code in (None, self.code) and text in self.text

    def __repr__(self) -> str:
        if not self.lines:
            return "<Reply: none>"
        more = f" and {len(self.lines) - 1} lines before" if len(self.lines) > 1 else ""
        message = "" if self.message is None else f", message of {len(self.message)} bytes"
        return f"<Reply {self.lines[-1]!r}{more}{message}>"


class Session:
    """A client of smtpd. Made by ``FakeSmtpd.connect()``.

    Every method that talks to smtpd switches greenlets, raises what the oracle says of the
    filter's answer, ConnectionError once the connection is closed, and RuntimeError for a command
    in the middle of a message. Calls from several greenlets follow one another.

    Attributes:
        reply: the last reply, at first the banner.
        closed: whether the connection is closed, by either side.
    """

    def __init__(
        self,
        link: FilterLink,
        version: Version,
        listener: Listener,
        peer: Peer,
        deliver: Callable[[Message], None],
    ) -> None:
        self.reply = Reply(())
        self.closed = False
        self._hung: SmtpdWouldHang | None = None
        self._delivered: list[Message] = []
        self._link = link
        self._deliver = deliver
        self._message: Message | None = None
        self._lock = RLock()
        self._smtp = SmtpIn(link, version, listener, peer, self._accept)
        self._smtps = peer.smtps

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        decisions = ", ".join(
            f"{phase} {_shown(phase, decision)}" for phase, decision in self.decisions[-4:]
        )
        return f"<Session {self.id}{state}, {self.reply!r}, decisions: {decisions or 'none'}>"

    @property
    def id(self) -> str:
        """Session id, 16 hexadecimal digits."""
        return self._smtp.id

    @property
    def delivered(self) -> list[Message]:
        """Messages of this session that smtpd accepted, in order."""
        return list(self._delivered)

    @property
    def decisions(self) -> list[tuple[str, str]]:
        """``(phase, decision)`` for each answer of the filter, as on the wire."""
        return self._smtp.decisions

    @property
    def junk(self) -> bool:
        """Whether a message that begins now, or is open, gets ``X-Spam: Yes``."""
        return self._smtp.junk

    def connect(self) -> Reply:
        """Connect. ``FakeSmtpd.connect()`` has done it."""
        reply = self._step(self._smtp.begin)
        if self._smtps and not self.closed and not reply.lines:
            self.tls_started()
        return self.reply

    def command(self, line: str, result: str = "ok") -> Reply:
        """Send one command line, legal or not.

        Args:
            line: without CRLF.
            result: what smtpd itself thinks of an AUTH, MAIL or RCPT that the filter let pass:
                ``ok``, ``permfail`` or ``tempfail``.
        """
        return self._step(self._smtp.execute, line, result)

    def helo(self, identity: str) -> Reply:
        """Send HELO."""
        return self.command(f"HELO {identity}")

    def ehlo(self, identity: str) -> Reply:
        """Send EHLO."""
        return self.command(f"EHLO {identity}")

    def starttls(self, ciphers: str = TLS_1_3) -> Reply:
        """Send STARTTLS, and go through the handshake if it is allowed. EHLO comes again."""
        with self._lock:
            reply = self.command("STARTTLS")
            if reply.ok:
                self.tls_started(ciphers)
            return reply

    def tls_started(self, ciphers: str = TLS_1_3) -> None:
        """Go through the TLS handshake that follows a 220 to STARTTLS."""
        with self._lock:
            before = self.reply
            reply = self._step(self._smtp.tls_started, ciphers)
            self.reply = reply if reply.lines else before

    def auth(self, username: str, password: str, ok: bool = True) -> Reply:
        """Send AUTH PLAIN; ``ok`` is whether smtpd finds the password right."""
        plain = f"\0{username}\0{password}".encode("utf-8", "surrogateescape")
        response = base64.b64encode(plain).decode()
        return self.command(f"AUTH PLAIN {response}", "ok" if ok else "permfail")

    def mail_from(self, address: str, *options: str, result: str = "ok") -> Reply:
        """Send MAIL FROM; "" is the null sender."""
        return self.command(" ".join([f"MAIL FROM:<{address}>", *options]), result)

    def rcpt_to(self, address: str, *options: str, result: str = "ok") -> Reply:
        """Send RCPT TO; ``result`` is smtpd's own opinion once the filter let it pass."""
        return self.command(" ".join([f"RCPT TO:<{address}>", *options]), result)

    def data(self, message: bytes) -> Reply:
        """Send DATA, and the message if it is asked for.

        Args:
            message: lines ending in LF or CRLF, not dot-stuffed.
        """
        with self._lock:
            reply = self.data_begin()
            if reply.code != 354:
                return reply
            self.data_lines(message.removesuffix(b"\n").split(b"\n") if message else ())
            return self.reply if self.closed else self.data_end()

    def data_begin(self) -> Reply:
        """Send DATA."""
        return self.command("DATA")

    def data_lines(self, lines: Iterable[bytes]) -> None:
        """Send lines of a message, not dot-stuffed, without LF; one CR at their end is dropped."""
        self._step(self._feed, lines, in_data=True)

    def data_end(self) -> Reply:
        """Send the final dot."""
        return self._step(self._smtp.end_of_data, in_data=True)

    def rset(self) -> Reply:
        """Send RSET."""
        return self.command("RSET")

    def noop(self) -> Reply:
        """Send NOOP."""
        return self.command("NOOP")

    def quit(self) -> Reply:
        """Send QUIT."""
        return self.command("QUIT")

    def disconnect(self) -> None:
        """Close the connection, in the middle of whatever there is.

        While the filter owes an answer, smtpd does not look at the client; so this waits too.
        """
        self._leave()

    def timeout(self) -> None:
        """Say nothing until smtpd's session timeout has passed. Does not wait for it."""
        self._leave("timeout")

    def _feed(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._smtp.data_line(stuff_line(line))
            if self._smtp.ending:
                return

    def _leave(self, *events: str) -> None:
        with self._lock:
            if self.closed:
                return
            if self._hung:
                self.closed = True
                return
            for event in events:
                self._smtp.report(event)
            self._close()
            self._link.flush()

    def _step(self, do: Callable[..., None], *arguments: object, in_data: bool = False) -> Reply:
        with self._lock:
            if self._hung:
                raise self._hung
            if self.closed:
                raise ConnectionError("the connection is closed")
            if in_data != self._smtp.in_data:
                raise RuntimeError("DATA comes first" if in_data else "a message is open")
            try:
                do(*arguments)
            except SmtpdWouldHang as error:
                self._hung = error
                raise
            finally:
                self._finish()
            self._link.flush()
            return self.reply

    def _finish(self) -> None:
        lines, self._smtp.lines = self._smtp.lines, []
        message, self._message = self._message, None
        self.reply = Reply(tuple(lines), message.data if message else None)
        if self._smtp.ending:
            self._close()

    def _close(self) -> None:
        self._smtp.free()
        self.closed = True

    def _accept(self, message: Message) -> None:
        self._message = message
        self._delivered.append(message)
        self._deliver(message)


def _shown(phase: str, decision: str) -> str:
    kind, bar, value = decision.partition("|")
    if phase == "auth" and kind == "rewrite":
        value = decode(redact_auth(value.encode("utf-8", "surrogateescape")))
    return kind + bar + value
