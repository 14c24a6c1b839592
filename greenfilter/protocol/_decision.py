"""What a filter callback may return, and what it becomes on the wire."""

from __future__ import annotations

import re
from typing import Final

from ..errors import DecisionError

_NOT_TEXT = re.compile(r"[^\t\x20-\x7e]")
_ENHANCED = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}\Z")
# RFC 5321, 4.5.3.1.5: a reply line is at most 512 octets, CRLF included.
MAX_REPLY_BYTES: Final = 510


class Decision:
    """The answer to one request. Made by the functions below, never changed.

    Attributes:
        kind: ``proceed``, ``reject``, ``disconnect``, ``rewrite``, ``junk``, ``report`` or
            ``bypass``.
        value: reply text (with its code), new address or identity, or report text; else "".
        wire: the answer as it follows ``filter-result|SID|TOKEN|``.

    Raises:
        DecisionError: the value holds a surrogate that stands for no byte.
    """

    __slots__ = ("kind", "value", "wire")

    kind: str
    value: str
    wire: bytes

    def __init__(self, kind: str, value: str = "") -> None:
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "value", value)
        text = f"{kind}|{value}" if value else kind
        try:
            wire = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise DecisionError(f"the text of a {kind} cannot be encoded: {error}") from error
        object.__setattr__(self, "wire", wire)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a decision does not change: {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and self.wire == other.wire

    def __hash__(self) -> int:
        return hash(self.wire)

    def __repr__(self) -> str:
        return f"{self.kind}({self.value!r})" if self.value else f"{self.kind}()"


class _Drop:
    """The type of :data:`DROP`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "DROP"


DROP: Final = _Drop()
"""Returned by a data_line handler to leave the line out of the message."""

PROCEED: Final = Decision("proceed")
JUNK: Final = Decision("junk")
BYPASS: Final = Decision("bypass")


def proceed() -> Decision:
    """Let the command go on, and let the next filter of a chain see it. The same as None."""
    return PROCEED


def bypass() -> Decision:
    """Let the command go on, and keep this session from all later members of the chain.

    It holds until the session ends. Outside a chain it is the same as :func:`proceed`.
    """
    return BYPASS


def junk() -> Decision:
    """Let the command go on and mark the mail with ``X-Spam: Yes``.

    Outside a transaction, and at mail-from, this marks every message of the session. Not legal at
    commit.
    """
    return JUNK


def reject(code: int, text: str, *, enhanced: str | None = None) -> Decision:
    """Refuse the command.

    At connect, where smtpd would leave the client connected without a banner, this is sent as a
    disconnect. Code 421 always disconnects. At auth, where smtpd would log the password, the client
    is told 501 instead of the code and text, and stays connected.

    Args:
        code: SMTP reply code, 400 to 599.
        text: for the client. Everything but printable ASCII becomes a space or ``?``, and what
            passes the 512 octets of a reply line (RFC 5321, 4.5.3.1.5) is cut.
        enhanced: enhanced status code (RFC 3463) such as ``5.7.1``, of the class of ``code``.

    Raises:
        DecisionError: the code or the enhanced code is not one.
    """
    return Decision("reject", _reply(code, text, enhanced))


def disconnect(code: int, text: str, *, enhanced: str | None = None) -> Decision:
    """Refuse the command and close the connection. Arguments as for :func:`reject`."""
    return Decision("disconnect", _reply(code, text, enhanced))


def rewrite(value: str) -> Decision:
    """Replace the argument of the command.

    Args:
        value: at helo and ehlo the new identity; at mail-from and rcpt-to the new address, to
            which brackets are added where it has none (``<user@host> SIZE=1`` keeps parameters,
            which are lost if not restated); at auth the new credentials, for PLAIN or LOGIN.

    Raises:
        DecisionError: the value is empty, has CR, LF or NUL, or cannot be encoded.
    """
    if not isinstance(value, str) or not value:
        raise DecisionError(f"rewrite() takes a non-empty str, not {value!r}")
    if any(char in value for char in "\r\n\0"):
        raise DecisionError("rewrite() cannot send CR, LF or NUL")
    return Decision("rewrite", value)


def report(text: str) -> Decision:
    """Let the command go on and send ``text`` to the reports of every filter.

    Legal at connect, data and commit, on smtpd 7.6 and later.

    Args:
        text: everything but printable ASCII becomes a space or ``?``.

    Raises:
        DecisionError: no text is left.
    """
    clean = _clean(text)
    if not clean:
        raise DecisionError("report() takes a text")
    return Decision("report", clean)


def _reply(code: int, text: str, enhanced: str | None) -> str:
    if not isinstance(code, int) or not 400 <= code <= 599:
        raise DecisionError(f"an SMTP reply code is 400 to 599, not {code!r} (RFC 5321, 4.2.1)")
    if enhanced is not None and not (
        isinstance(enhanced, str) and _ENHANCED.match(enhanced) and enhanced[0] == str(code)[0]
    ):
        raise DecisionError(
            f"enhanced={enhanced!r} is not an enhanced code of class {code // 100} (RFC 3463)"
        )
    parts = [str(int(code)), enhanced or "", _clean(text) or "Refused"]
    return " ".join(part for part in parts if part)[:MAX_REPLY_BYTES]


def _clean(text: str) -> str:
    """Return printable ASCII only: the text may quote mail, and must not end or forge a line."""
    if not isinstance(text, str):
        raise DecisionError(f"the text of a decision is a str, not {type(text).__name__}")
    return _NOT_TEXT.sub(lambda m: " " if m[0] in "\r\n\0" else "?", text).strip()
