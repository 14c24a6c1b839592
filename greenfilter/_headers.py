"""The header block of a message as an ordered, case-insensitive view."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, overload

if TYPE_CHECKING:
    from collections.abc import Iterator

# RFC 5322, 2.1.1: a line should have at most 78 octets and must have at most 998, without CRLF.
FOLD_BYTES: Final = 78
MAX_LINE_BYTES: Final = 998

_NEXT_FIELD = re.compile(rb"\r\n(?![ \t])")
# RFC 5322, 3.6.8; white space before the colon is obsolete but must be read (4.5).
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_NAME = re.compile(r"[!-9;-~]+\Z")
_CALLERS_FOLD = re.compile(r"\r?\n(?=[ \t])")
_FORBIDDEN = re.compile(r"[\r\n\0]")
_FOLD_PLACE = re.compile(rb"[ \t]+(?=[^ \t])")


class _Entry(NamedTuple):
    """One field with its continuation lines, or a line that is no field.

    Attributes:
        key: the field's name in lower case, "" for what is no field.
        raw: the bytes, without the last CRLF.
    """

    key: str
    raw: bytes

    @property
    def name(self) -> str:
        return self.raw[: len(self.key)].decode("ascii")

    @property
    def value(self) -> str:
        value = self.raw[self.raw.index(b":") + 1 :].replace(b"\r\n", b"")
        return value.strip(b" \t").decode("utf-8", "surrogateescape")


class Headers:
    """The header fields of a message, in order; names are compared without case.

    Fields that are not edited keep their bytes exactly. Lines of the block that are no field (no
    colon, an mbox "From " line, a continuation line before any field) keep them too and are not
    part of the view. Values are text: unfolded, without white space at both ends, decoded as
    UTF-8 with surrogateescape, so that any bytes come back when a value is written again.

    Values that are written are encoded the same way and folded at white space to lines of 78
    octets. A value with a newline followed by white space counts as folded by the caller and is
    kept so. Nothing here switches greenlets.

    Args:
        block: the header block with CRLF line ends, without the blank line after it.
    """

    __slots__ = ("_edited", "_entries")

    def __init__(self, block: bytes = b"") -> None:
        raws = _NEXT_FIELD.split(block.removesuffix(b"\r\n")) if block else []
        self._entries = [_entry(raw) for raw in raws]
        self._edited = False

    @property
    def edited(self) -> bool:
        """Whether a field was added, replaced or removed."""
        return self._edited

    def __bytes__(self) -> bytes:
        """Return the header block as edited, with CRLF line ends and without the blank line."""
        return b"".join([entry.raw + b"\r\n" for entry in self._entries])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(name) and self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the fields in order, as they are spelled, repeated ones as often."""
        return (entry.name for entry in self._entries if entry.key)

    def __len__(self) -> int:
        return sum(1 for entry in self._entries if entry.key)

    def __repr__(self) -> str:
        return f"<Headers {list(self)}>"

    def items(self) -> list[tuple[str, str]]:
        """Return names, as they are spelled, and values of all fields in order."""
        return [(entry.name, entry.value) for entry in self._entries if entry.key]

    @overload
    def get(self, name: str) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    @overload
    def get(self, name: str, default: None) -> str | None: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the value of the first field of this name, or ``default``."""
        index = self._find(name)
        return default if index is None else self._entries[index].value

    def get_all(self, name: str) -> list[str]:
        """Return the values of all fields of this name, in order."""
        key = name.lower()
        return [entry.value for entry in self._entries if entry.key == key != ""]

    def prepend(self, name: str, value: str) -> None:
        """Add a field on top of the block.

        Only an mbox "From " line, and continuation lines without a field, stay above it: the one
        belongs there, the others would become part of the new field.

        Args:
            name: printable ASCII without space and colon.
            value: text of the field; folded here unless it is folded already.

        Raises:
            ValueError: the name is no field name (RFC 5322, 3.6.8); or the value has a NUL, a CR or
                LF that does not fold, a folded line of white space only, or needs a line above 998
                octets (RFC 5322, 2.1.1). Nothing was changed.
        """
        self._insert(self._top(), _format(name, value))

    def append(self, name: str, value: str) -> None:
        """Add a field at the end of the block. Arguments and errors as :meth:`prepend`.

        That is after the last field: lines below it that are no field stay below, because many
        readers take the first such line as the beginning of the body.
        """
        fields = [index for index, entry in enumerate(self._entries) if entry.key]
        self._insert(fields[-1] + 1 if fields else self._top(), _format(name, value))

    def replace(self, name: str, value: str) -> None:
        """Put a field in the place of the first of this name and remove the others.

        It is appended where there is none. Arguments and errors as :meth:`prepend`.
        """
        index = self._find(name)
        if index is None:
            self.append(name, value)
            return
        entry = _format(name, value)
        self.remove(name)
        self._insert(index, entry)

    def remove(self, name: str) -> None:
        """Remove all fields of this name, if there are any."""
        key = name.lower()
        kept = [entry for entry in self._entries if not entry.key or entry.key != key]
        if len(kept) != len(self._entries):
            self._entries = kept
            self._edited = True

    def _find(self, name: str) -> int | None:
        key = name.lower()
        for index, entry in enumerate(self._entries):
            if entry.key == key != "":
                return index
        return None

    def _insert(self, index: int, entry: _Entry) -> None:
        self._entries.insert(index, entry)
        self._edited = True

    def _top(self) -> int:
        first = self._entries[0] if self._entries else None
        stays = first and not first.key and first.raw.startswith((b"From ", b" ", b"\t"))
        return 1 if stays else 0


def _entry(raw: bytes) -> _Entry:
    match = _FIELD.match(raw)
    return _Entry(match[1].decode("ascii").lower() if match else "", raw)


def _format(name: str, value: str) -> _Entry:
    if not _NAME.match(name):
        raise ValueError(
            f"{name!r} is no header field name: printable ASCII without space and colon "
            "(RFC 5322, 3.6.8)"
        )
    lines = _CALLERS_FOLD.split(value)
    for line in lines:
        found = _FORBIDDEN.search(line)
        if found:
            raise ValueError(
                f"the value of {name} has {found[0]!r}: no NUL is allowed, and a newline only "
                "where white space follows"
            )
    if any(not line.strip(" \t") for line in lines[1:]):
        raise ValueError(
            f"the value of {name} has a folded line of white space only (RFC 5322, 3.2.2)"
        )
    lines[0] = f"{name}: {lines[0]}" if lines[0] else f"{name}:"
    raws = [_encode(name, line) for line in lines]
    if len(raws) == 1:
        raws = _fold(raws[0])
    longest = max(map(len, raws))
    if longest > MAX_LINE_BYTES:
        raise ValueError(
            f"{name} needs a line of {longest} octets: without white space to fold at, "
            f"{MAX_LINE_BYTES} is the limit (RFC 5322, 2.1.1)"
        )
    return _Entry(name.lower(), b"\r\n".join(raws))


def _encode(name: str, line: str) -> bytes:
    try:
        return line.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"the value of {name} cannot be encoded: {error}") from error


def _fold(line: bytes) -> list[bytes]:
    """Cut a line before white space, so that parts have 78 octets at most where they can."""
    parts = []
    start = last = 0
    for place in [match.start() for match in _FOLD_PLACE.finditer(line)] + [len(line)]:
        if place - start > FOLD_BYTES and last > start:
            parts.append(line[start:last])
            start = last
        last = place
    parts.append(line[start:])
    return parts
