"""What signatures are made over: fields and body in canonical form (RFC 6376, 3.4).

Everything here takes linear time: the mail may be hostile.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_NEXT_FIELD = re.compile(rb"\r\n(?![ \t])")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_WHITE = re.compile(rb"[ \t]+")
_RUN = re.compile(rb"[ \t]{2,}|\t")  # all that is not one space already


class Field(NamedTuple):
    """A header field: its name in lower case, and its bytes without the last CRLF."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """What stands behind the colon, unfolded."""
        return self.raw.partition(b":")[2].replace(b"\r\n", b"")


def split_fields(block: bytes) -> list[Field]:
    """Split a header block, lines ended by CRLF; what is not a field is left out."""
    matches = ((_FIELD.match(raw), raw) for raw in _NEXT_FIELD.split(block.removesuffix(b"\r\n")))
    return [Field(match[1].lower(), raw) for match, raw in matches if match]


def relaxed(field: Field) -> bytes:
    """Return a field in "relaxed" form, without the last CRLF (RFC 6376, 3.4.2)."""
    return field.name + b":" + _WHITE.sub(b" ", field.value).strip(b" ")


def simple(field: Field) -> bytes:
    """Return a field in "simple" form, without the last CRLF (RFC 6376, 3.4.1)."""
    return field.raw


FORMS = {"relaxed": relaxed, "simple": simple}


def select(fields: Sequence[Field], names: Iterable[bytes]) -> list[Field]:
    """Choose the fields that a list of names means, from the bottom up (RFC 6376, 5.4.2)."""
    left: dict[bytes, list[Field]] = {}
    for field in fields:
        left.setdefault(field.name, []).append(field)
    return [left[name].pop() for name in names if left.get(name)]


def without_signature(field: Field) -> Field:
    """Empty the b= tag of a signature field, and leave all else as it is (RFC 6376, 3.7)."""
    name, colon, value = field.raw.partition(b":")
    tags = value.split(b";")
    for index, tag in enumerate(tags):
        tag_name, equals, _ = tag.partition(b"=")
        if equals and tag_name.strip() == b"b":
            tags[index] = tag_name + equals
    return Field(field.name, name + colon + b";".join(tags))


class BodyForm(NamedTuple):
    """How a signature takes the body: relaxed or simple, and only so many octets of it."""

    form: str
    length: int | None = None


class BodyHash:
    """SHA-256 of a body in canonical form (RFC 6376, 3.4.3 and 3.4.4), line by line.

    Attributes:
        size: octets of the body in this form, those behind ``length`` too.
    """

    def __init__(self, form: BodyForm) -> None:
        self._relaxed = form.form == "relaxed"
        self._left = form.length
        self._hash = hashlib.sha256()
        self._blank_lines = 0
        self.size = 0

    def update(self, lines: Sequence[bytes]) -> None:
        """Take lines without their ends."""
        white = b" \t" if self._relaxed else b"\n"  # there is no newline in a line
        end = len(lines)
        while end and not lines[end - 1].strip(white):
            end -= 1
        if end:
            data = b"\r\n".join(lines[:end]) + b"\r\n"
            if self._relaxed:
                data = _RUN.sub(b" ", data).replace(b" \r\n", b"\r\n")
            self._feed(b"\r\n" * self._blank_lines + data)
            self._blank_lines = 0
        self._blank_lines += len(lines) - end

    def digest(self) -> bytes:
        """Return the hash, at the end."""
        if not self.size and not self._relaxed:
            self._feed(b"\r\n")  # an empty body is one line end
        return self._hash.digest()

    def _feed(self, data: bytes) -> None:
        self.size += len(data)
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        self._hash.update(data)
