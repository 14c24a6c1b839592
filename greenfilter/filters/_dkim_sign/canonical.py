"""Messages as verifiers see them: relaxed form, and what not all of them take (RFC 6376, 3.4)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from .._smtpd_edits import MAX_LINE, SPACE, octets, too_long

MAX_WRITTEN = 100  # fields that are written again: RFC 5322, 3.6 allows three with addresses
_NEXT_FIELD = re.compile(rb"\r\n(?![ \t])")
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:|From ")  # and what an mbox file has on top
_WHITE = re.compile(r"[ \t]+")
_WHITE_BYTES = re.compile(rb"[ \t]+")


class NotSigned(ValueError):
    """A message is left as it is; the text says why."""


class BareReturn(NotSigned):
    """The body has a CR that ends no line."""


def unverifiable(headers: Any, signed: Sequence[str]) -> str | None:
    """Return what would make verifiers reject a good signature, if there is any such thing.

    Some take off other white space than RFC 6376, 3.4.2 says, and all want fields in a header.
    """
    for raw in _NEXT_FIELD.split(bytes(headers).removesuffix(b"\r\n")):
        if raw and not _FIELD.match(raw):
            return f"a header line that is not a field: {raw[:40]!r}"
        if problem := too_long(raw):
            return problem
    if sum("\r" in value for _, value in headers.items()) > MAX_WRITTEN:
        return f"more than {MAX_WRITTEN} headers with a bare CR"
    for name, value in headers.items():
        if name.lower() in signed and value != value.strip(SPACE):
            return f"a control character at one end of {name}"
    return None


def mend(headers: Any) -> None:
    """Put a space in the place of each CR that stands in a field."""
    seen: Counter[str] = Counter()
    for name, value in headers.items():
        if "\r" in value:
            headers.replace(name, octets(value), index=seen[name.lower()])
        seen[name.lower()] += 1


def body_hash(lines: Iterable[bytes]) -> bytes:
    """Return the SHA-256 of a body in relaxed form (RFC 6376, 3.4.4), in one pass, linear time."""
    digest, blank = hashlib.sha256(), 0
    for line in lines:
        if b"  " in line or b"\t" in line:
            line = _WHITE_BYTES.sub(b" ", line)
        line = line.rstrip(b" ")
        if line:
            digest.update(b"\r\n" * blank + line + b"\r\n")
            blank = 0
        else:
            blank += 1  # blank lines at the end do not count
    return digest.digest()


def sendable(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a body, which arrive as they are sent.

    Raises:
        BareReturn: one has a CR.
        NotSigned: one is too long.
    """
    for line in lines:
        if b"\r" in line:
            raise BareReturn("a bare CR in the body")
        if len(line) > MAX_LINE:
            raise NotSigned(f"a line of {len(line)} octets in the body")
        yield line


def body_lines(message: Any) -> Iterable[bytes]:
    """Yield the lines after the header block, read as they are asked for."""
    lines = chain.from_iterable(message.lines())
    for line in lines:
        if not line:
            break
    return lines


def relaxed_header(name: str, value: str) -> str:
    """Return a header field in relaxed form (RFC 6376, 3.4.2), without its CRLF."""
    return f"{name.lower()}:{_WHITE.sub(' ', value).strip(' ')}"
