"""A message as the standard library's email package sees it, within limits.

That package takes time that grows with the lines of a message times the depth of its parts, with
the square of the length of some header fields, and recurses into others until Python gives up.
Only an attacker's mail is like that.
"""

from __future__ import annotations

from contextlib import suppress
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import EmailPolicy
from typing import TYPE_CHECKING, Any, Final

from ..errors import MessageTooBig

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DEPTH: Final = 50  # a forward of a forward of ... adds two or three
MAX_PARTS: Final = 1000
MAX_LINES: Final = 1_000_000  # each costs 60 bytes, and its time once more for each depth
MIN_LINE_BYTES: Final = 40  # on average, in messages of more lines than that; base64 has 78
MAX_MIME_FIELD_CHARS: Final = 8192  # takes 0.3 s at worst
MAX_PARSED_CHARS: Final = 256 << 10  # of MIME fields, and of others that are long, in all
_SHORT_CHARS: Final = 500  # other fields up to here are parsed when they are asked for


def parse_email(data: bytes) -> EmailMessage:
    """Parse a message. It computes, for some seconds at worst: not for the event loop.

    Raises:
        MessageTooBig: a limit of this module is passed.
    """
    if data.count(b"\n") > max(MAX_LINES, len(data) // MIN_LINE_BYTES):
        raise MessageTooBig(f"the message has more than {MAX_LINES} lines")
    limits = _Limits()
    # What is not changed keeps its lines when the message is written (refold_source).
    options: dict[str, Any] = {"message_factory": _Part, "limits": limits}
    policy = _Policy(linesep="\r\n", refold_source="none", **options)
    email: EmailMessage = BytesParser(policy=policy).parsebytes(data)  # type: ignore[assignment]
    limits.parsing = False
    return email


class _Limits:
    """What one message has left while it is parsed, and fields that were parsed with it."""

    def __init__(self) -> None:
        self.parsing = True
        self.parts = MAX_PARTS
        self.chars = MAX_PARSED_CHARS
        self.parsed: dict[tuple[str, str], Any] = {}


class _Part(EmailMessage):
    """A message or a part of one that counts what the parser puts into it."""

    depth = 0

    def attach(self, payload: Any) -> None:
        limits = self.policy.limits  # type: ignore[attr-defined]
        if limits.parsing:
            payload.depth = self.depth + 1
            limits.parts -= 1
            if payload.depth > MAX_DEPTH:
                raise MessageTooBig(f"the message has parts within parts, more than {MAX_DEPTH}")
            if limits.parts < 0:
                raise MessageTooBig(f"the message has more than {MAX_PARTS} parts")
        super().attach(payload)


class _Policy(EmailPolicy):
    """``email.policy.SMTP``, but fields that may take long are parsed once, with the message."""

    limits: Any = None

    def header_source_parse(self, sourcelines: Sequence[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(list(sourcelines))
        is_mime = name.lower().startswith("content-")
        if self.limits.parsing and (is_mime or len(value) > _SHORT_CHARS):
            self.limits.chars -= len(value)
            if is_mime and len(value) > MAX_MIME_FIELD_CHARS:
                raise MessageTooBig(f"{name} has more than {MAX_MIME_FIELD_CHARS} characters")
            if self.limits.chars < 0:
                raise MessageTooBig(
                    f"headers of parts have more than {MAX_PARSED_CHARS} characters"
                )
            self.limits.parsed[name, value] = self.header_fetch_parse(name, value)
        return name, value

    def header_fetch_parse(self, name: str, value: str) -> Any:
        if (parsed := self.limits.parsed.get((name, value))) is not None:
            return parsed
        # The standard library's parser raises many errors of its own for what is malformed.
        with suppress(Exception):
            return super().header_fetch_parse(name, value)
        text = "".join(value.splitlines())
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
