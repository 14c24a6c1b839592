"""What smtpd says, and when it refuses a command before any filter sees it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import smtp_commands

if TYPE_CHECKING:
    from .model import Listener, Peer, State
    from .wire import Version

# smtpd.conf(5): limit session max-mails and max-rcpt.
_MAX_MESSAGES = 100
_MAX_RCPTS = 1000

BAD_SENDER = "553 5.1.0 Sender address syntax error"
BAD_RECIPIENT = "501 5.1.3 Recipient address syntax error"
COMMAND_TOO_LONG = "500 5.0.0 Command line too long"
LINE_TOO_LONG = "500 5.0.0 Line too long"
PIPELINING = "500 5.5.1 Invalid command: Pipelining not supported"
MALFORMED = "550 5.7.1 Delivery not authorized, message refused: Message is not RFC 2822 compliant"
MESSAGE_TOO_BIG = "554 5.3.4 Message too big for system: Transaction failed, message too big"
SYNTAX_ERROR = "501 5.5.2 Syntax error: Syntax error"
HELP = (
    "214-2.0.0 This is OpenSMTPD",
    "214-2.0.0 To report bugs in the implementation, please contact bugs@openbsd.org",
    "214-2.0.0 with full details",
    "214 2.0.0 End of HELP info",
)
WIZ = "500 5.5.1 Invalid command: this feature is not supported yet ;-)"
LOOP = "500 5.4.6 Routing loop detected: Loop detected"
UNRECOGNIZED = "500 5.5.1 Invalid command: Command unrecognized"

_NOT_NOW = "503 5.5.1 Invalid command: Command not allowed at this point."
_NOT_SUPPORTED = "503 5.5.1 Invalid command: Command not supported"
_ARGUMENTS = "5.5.4 Invalid command arguments:"
NO_ARGUMENTS = f"500 {_ARGUMENTS} command does not accept arguments."


def refusal(
    state: State, listener: Listener, version: Version, phase: str, argument: str | None
) -> str:
    """Return why smtpd refuses a command, "" if it does not.

    smtpd asks this before the filter, and again when the filter has rewritten the argument.

    Args:
        state: of the session.
        listener: where the client connected.
        version: protocol version.
        phase: that the command stands for.
        argument: of the command, None if it has none.
    """
    if phase in ("helo", "ehlo"):
        return _refuse_hello(state, phase.upper(), argument)
    if phase == "starttls":
        return _refuse_starttls(state, listener, argument)
    if phase == "auth":
        return _refuse_auth(state, listener, argument)
    if phase == "mail-from":
        return _refuse_mail(state, listener, argument or "")
    if phase == "rcpt-to":
        return _refuse_rcpt(state, listener, argument or "")
    # 6.8 still refuses NOOP with an argument.
    if argument is not None and (phase != "noop" or version < (0, 7)):
        return NO_ARGUMENTS
    if (phase == "rset" and not state.identity) or (phase == "data" and not state.tx):
        return _NOT_NOW
    if phase == "data" and state.tx and not state.tx.rcpt_to:
        return f"503 {_ARGUMENTS} No recipient specified"
    return ""


def _refuse_hello(state: State, verb: str, argument: str | None) -> str:
    if not state.banner_sent:
        return _NOT_NOW
    if state.identity:
        return "503 5.5.1 Invalid command: Already identified"
    if argument is None:
        return f"501 5.5.1 Invalid command: {verb} requires domain name"
    return "" if smtp_commands.is_domain(argument) else f"501 {_ARGUMENTS} Invalid domain name"


def _refuse_starttls(state: State, listener: Listener, argument: str | None) -> str:
    if not state.identity or state.tx:
        return _NOT_NOW
    if not listener.starttls:
        return _NOT_SUPPORTED
    if state.ciphers:
        return "503 5.5.1 Invalid command: Channel already secured"
    return "" if argument is None else f"501 {_ARGUMENTS} No parameters allowed"


def _refuse_auth(state: State, listener: Listener, argument: str | None) -> str:
    if not state.identity or state.tx:
        return _NOT_NOW
    if state.authenticated:
        return "503 5.5.1 Invalid command: Already authenticated"
    if not (listener.auth and state.ciphers):
        return _NOT_SUPPORTED
    return f"501 {_ARGUMENTS} No parameters given" if argument is None else ""


def _refuse_mail(state: State, listener: Listener, argument: str) -> str:
    if not state.identity or state.tx:
        return _NOT_NOW
    if listener.auth_required and not state.ciphers:
        return "530 5.5.1 Invalid command: Must issue a STARTTLS command first"
    if listener.auth_required and not state.authenticated:
        return "530 5.5.1 Invalid command: Must issue an AUTH command first"
    if state.messages >= _MAX_MESSAGES:
        return "452 4.5.3 Too many recipients: Too many messages sent"
    path = smtp_commands.parse_path(argument, listener.hostname, null_allowed=True)
    return "" if path else BAD_SENDER


def _refuse_rcpt(state: State, listener: Listener, argument: str) -> str:
    if not state.tx:
        return _NOT_NOW
    if len(state.tx.rcpt_to) >= _MAX_RCPTS:
        return "451 4.5.3 Too many recipients: Too many recipients"
    path = smtp_commands.parse_path(argument, listener.hostname, null_allowed=False)
    return "" if path else BAD_RECIPIENT


def unsupported_auth(method: str) -> str:
    """Return the reply to AUTH with a method other than PLAIN and LOGIN."""
    return f'504 5.7.4 Security features not supported: AUTH method "{method}" not supported'


def hello(state: State, listener: Listener, peer: Peer) -> list[str]:
    """Return the reply to HELO or EHLO."""
    greeting = f"{listener.hostname} Hello {state.identity} {peer.bracketed_address}"
    greeting += ", pleased to meet you"
    if not state.extended:
        return [f"250 {greeting}"]
    size = f"SIZE {listener.max_message_bytes}"
    extensions = [greeting, "8BITMIME", "ENHANCEDSTATUSCODES", size, "DSN"]
    if listener.starttls and not state.ciphers:
        extensions.append("STARTTLS")
    if listener.auth and state.ciphers and not state.authenticated:
        extensions.append("AUTH PLAIN LOGIN")
    return [f"250-{extension}" for extension in extensions] + ["250 HELP"]


def own_header(state: State, listener: Listener, peer: Peer) -> list[bytes]:
    """Return the lines with which smtpd begins a message."""
    assert state.tx is not None
    lines = ["X-Spam: Yes"] if state.junk or state.tx.junk else []
    if listener.received:
        protocol = "ESMTP" if state.extended else "SMTP"
        protocol += ("S" if state.ciphers else "") + ("A" if state.authenticated else "")
        tls = f" ({state.ciphers}:NO)" if state.ciphers else ""
        by = f"{listener.hostname} (OpenSMTPD) with {protocol} id {state.tx.message_id}{tls}"
        lines.append(f"Received: from {state.identity} ({peer.rdns} {peer.bracketed_address})")
        lines.append(f"\tby {by}")
        if len(state.tx.rcpt_to) == 1:
            lines.append(f"\tfor <{state.tx.rcpt_to[0]}>")
        lines[-1] += ";"
        lines.append(time.strftime("\t%a, %d %b %Y %H:%M:%S +0000 (UTC)", time.gmtime()))
    return [line.encode("utf-8", "surrogateescape") for line in lines]
