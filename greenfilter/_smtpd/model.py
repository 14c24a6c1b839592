"""The parts of an SMTP session."""

from __future__ import annotations

from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass(frozen=True, slots=True)
class Listener:
    """A ``listen on`` line of smtpd.conf(5), as far as it shows.

    Args:
        hostname: in the banner, and the domain of an address without one.
        starttls: offer STARTTLS.
        auth: offer AUTH, as smtpd does once TLS is up.
        received: begin each message with smtpd's own ``Received:`` header.
        max_message_bytes: SIZE.
        auth_required: take no mail without TLS and AUTH (``tls-require`` and ``auth``).
        check_header: refuse a message with a malformed header, as smtpd does. Off by default, so
            that the messages of tests can be short.
    """

    hostname: str = "mx.example.org"
    starttls: bool = True
    auth: bool = True
    received: bool = True
    max_message_bytes: int = 36_700_160
    auth_required: bool = False
    check_header: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected.

    Args:
        src: ``192.0.2.10:4711``, ``[2001:db8::10]:4711`` or ``unix:/var/run/smtpd.sock``.
        dst: the same, of the listener.
        rdns: reverse DNS name, ``<unknown>`` for none.
        fcrdns: ``pass``, ``fail`` or ``error``.
        smtps: TLS begins with the connection.
    """

    src: str
    dst: str
    rdns: str
    fcrdns: str
    smtps: bool = False

    @property
    def address(self) -> str:
        """As the connect phase has it: without port, IPv6 in brackets, or ``local``."""
        return "local" if self.local else self.src.rpartition(":")[0]

    @property
    def bracketed_address(self) -> str:
        """As smtpd shows it to the client and in ``Received:``."""
        return self.address if self.address.startswith("[") else f"[{self.address}]"

    @property
    def local(self) -> bool:
        """Whether mail is submitted on this machine, by the unix socket."""
        return self.src.startswith("unix:")


@dataclass(frozen=True, slots=True)
class Message:
    """A message that smtpd accepted.

    Args:
        message_id: smtpd's own, 8 hexadecimal digits.
        mail_from: sender, "" for the null sender; after a rewrite the new one.
        rcpt_to: accepted recipients, after rewrites.
        data: as the filter left it, lines ending in CRLF, not dot-stuffed. The edits that smtpd
            makes after its filters (domain of From, Bcc, Date, Message-ID) are not made.
        junk: whether the filter asked for ``X-Spam: Yes``.
    """

    message_id: str
    mail_from: str
    rcpt_to: tuple[str, ...]
    data: bytes
    junk: bool

    def as_email(self) -> EmailMessage:
        """Parse :attr:`data`: ``message.as_email()["Subject"]``."""
        return message_from_bytes(self.data, policy=policy.SMTP)


@dataclass(slots=True)
class Transaction:
    """An open transaction.

    Args:
        mail_from: sender, "" for the null sender.
        number: smtpd's message id, 0 before there is one.
        rcpt_to: accepted recipients.
        junk: the filter marked this message.
        own_lines: number of the header lines that smtpd adds.
        own_bytes: their size.
        received_bytes: what the client sent.
        lines: what the filter made of it, not dot-stuffed.
        notify: what the NOTIFY parameters of its recipients have said.
    """

    mail_from: str
    number: int = 0
    rcpt_to: list[str] = field(default_factory=list)
    junk: bool = False
    own_lines: int = 0
    own_bytes: int = 0
    received_bytes: int = 0
    lines: list[bytes] = field(default_factory=list)
    notify: set[str] = field(default_factory=set)

    @property
    def message_id(self) -> str:
        """8 hexadecimal digits."""
        return f"{self.number:08x}"


@dataclass(slots=True)
class State:
    """What smtpd knows of a session.

    Args:
        banner_sent: the client was greeted.
        identity: of the last HELO or EHLO; "" before, and again once TLS has begun.
        extended: it was EHLO.
        ciphers: TLS parameters, "" without TLS.
        authenticated: AUTH succeeded, or the mail is submitted on this machine.
        junk: the filter marked the whole session.
        messages: how many were accepted.
        tx: the open transaction.
    """

    banner_sent: bool = False
    identity: str = ""
    extended: bool = False
    ciphers: str = ""
    authenticated: bool = False
    junk: bool = False
    messages: int = 0
    tx: Transaction | None = None
