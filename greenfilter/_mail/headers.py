"""The header block of a message as an ordered, case-insensitive view."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, overload

from .header_text import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

# RFC 5322, 2.1.1: a line should have at most 78 octets and must have at most 998, without CRLF;
# RFC 2047, 2: one with an encoded word at most 76.
FOLD_BYTES: Final = 78
FOLD_BYTES_ENCODED: Final = 76
MAX_LINE_BYTES: Final = 998
_MAX_WHITE: Final = 500  # a longer run of white space is one space: it might not fit on a line

_NEXT_FIELD = re.compile(rb"\r\n(?![ \t])")
# RFC 5322, 3.6.8; white space before the colon is obsolete but must be read (4.5).
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_NAME = re.compile(r"[!-9;-~]+\Z")
_CALLERS_FOLD = re.compile(r"\r?\n(?=[ \t])")
_FORBIDDEN = re.compile(r"[\n\0]")
_WHITE = re.compile(r"[ \t]+")
_FOLD_PLACE = re.compile(rb"[ \t]+(?=[^ \t])")


class _Entry(NamedTuple):
    """One field with its continuation lines, or a line that is not a field.

    Attributes:
        key: the field's name in lower case, "" for what is not a field.
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

    Fields that are not edited keep their bytes exactly. Lines of the block that are not fields (no
    colon, an mbox "From " line, a continuation line before any field) keep them too and are not
    part of the view. Nothing here switches greenlets.

    Values are read in two forms. :meth:`get`, :meth:`get_all` and :meth:`items` give them as they
    were sent: unfolded, without white space at both ends, encoded words and all; octets that are
    not UTF-8 are surrogates (PEP 383). :meth:`get_text` and :meth:`get_all_text` give text to read.

    What is written is ASCII. Of a ``str``, all else is encoded: words as RFC 2047 says, file names
    in MIME fields as RFC 2231 says; in address fields display names are, and domains become
    A-labels. ``bytes`` are written as they are. Both are folded at white space to lines of 78
    octets where they can be; a value with newlines before white space counts as folded by the
    caller and is kept so. Any value that came with a mail can be written again: a CR in it becomes
    a space, and a word that does not fit on a line of 998 octets (RFC 5322, 2.1.1) becomes encoded
    words, but stays whole in fields that programs read (References, DKIM-Signature and the like).
    Addresses without a form in ASCII are the exception: smtpd does not announce SMTPUTF8.

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

    def get_text(self, name: str, default: str | None = None) -> str | None:
        """Return the first field of this name as text to read, or ``default``.

        Encoded words (RFC 2047) are decoded, character sets that are not known left as they are.
        There is no line end, control character or surrogate in it: it can be logged, and written
        by :meth:`set_text`. Take no decisions about addresses from it: anybody can encode anything.
        """
        index = self._find(name)
        return default if index is None else decode(name, self._entries[index].value)

    def get_all_text(self, name: str) -> list[str]:
        """Return all fields of this name as text to read, in order; see :meth:`get_text`."""
        return [decode(name, value) for value in self.get_all(name)]

    def prepend(self, name: str, value: str | bytes) -> None:
        """Add a field on top of the block.

        Only an mbox "From " line, and continuation lines without a field, stay above it: the one
        belongs there, the others would become part of the new field.

        Args:
            name: printable ASCII without space and colon.
            value: of the field; encoded if it is text, and folded unless it is folded already.

        Raises:
            ValueError: the name is not a valid field name (RFC 5322, 3.6.8); or the value has a
                NUL, an LF that does not fold, a folded line of white space only, or an address
                that has no form in ASCII. Nothing was changed.
        """
        self._insert(self._top(), _format(name, value))

    def append(self, name: str, value: str | bytes) -> None:
        """Add a field at the end of the block. Arguments and errors as :meth:`prepend`.

        That is after the last field: lines below it that are not fields stay below, because many
        readers take the first such line as the beginning of the body.
        """
        self._insert(self._end(), _format(name, value))

    def insert(self, index: int, name: str, value: str | bytes) -> None:
        """Add a field before another one.

        Args:
            index: which field it is going to be, 0 is the first. As in lists, -1 is before the
                last one, and one that is too high or too low is the end or the top.
            name: as :meth:`prepend`.
            value: as :meth:`prepend`.

        Raises:
            ValueError: as :meth:`prepend`.
        """
        places = [place for place, entry in enumerate(self._entries) if entry.key]
        index = max(0, index + len(places)) if index < 0 else index
        entry = _format(name, value)
        if index >= len(places):
            self._insert(self._end(), entry)
        else:
            self._insert(places[index] if index else self._top(), entry)

    def replace(self, name: str, value: str | bytes, *, index: int | None = None) -> None:
        """Put a field in the place of one of this name.

        Args:
            name: as :meth:`prepend`.
            value: as :meth:`prepend`.
            index: which of the fields of this name, as in :meth:`get_all`; the others stay. None
                is the first one, and the others are removed; it is appended if there is none.

        Raises:
            ValueError: as :meth:`prepend`.
            IndexError: there are fewer fields of this name. Nothing was changed.
        """
        self._put(name, _format(name, value), index)

    def set_text(self, name: str, text: str, *, index: int | None = None) -> None:
        """Put text for people in the place of a field, so that :meth:`get_text` gives it back.

        As :meth:`replace`, but what looks like an encoded word is encoded, since it is not one.
        """
        self._put(name, _format(name, text, literal=True), index)

    def remove(self, name: str, *, index: int | None = None) -> None:
        """Remove all fields of this name, if there are any, or one of them.

        Args:
            name: compared without case.
            index: which of the fields of this name, as in :meth:`get_all`; None is all.

        Raises:
            IndexError: there are fewer fields of this name.
        """
        places = self._places(name)
        removed = set(places if index is None else [places[index]])
        if removed:
            kept = [entry for place, entry in enumerate(self._entries) if place not in removed]
            self._entries = kept
            self._edited = True

    def _put(self, name: str, entry: _Entry, index: int | None) -> None:
        places = self._places(name)
        if index is None and not places:
            self._insert(self._end(), entry)
            return
        place = places[0 if index is None else index]
        self._entries[place] = entry
        if index is None and len(places) > 1:
            others = set(places[1:])
            self._entries = [e for at, e in enumerate(self._entries) if at not in others]
        self._edited = True

    def _places(self, name: str) -> list[int]:
        key = name.lower()
        return [place for place, entry in enumerate(self._entries) if entry.key == key != ""]

    def _find(self, name: str) -> int | None:
        key = name.lower()
        for index, entry in enumerate(self._entries):
            if entry.key == key != "":
                return index
        return None

    def _insert(self, index: int, entry: _Entry) -> None:
        self._entries.insert(index, entry)
        self._edited = True

    def _end(self) -> int:
        fields = [index for index, entry in enumerate(self._entries) if entry.key]
        return fields[-1] + 1 if fields else self._top()

    def _top(self) -> int:
        first = self._entries[0] if self._entries else None
        stays = first and not first.key and first.raw.startswith((b"From ", b" ", b"\t"))
        return 1 if stays else 0


def _entry(raw: bytes) -> _Entry:
    match = _FIELD.match(raw)
    return _Entry(match[1].decode("ascii").lower() if match else "", raw)


def _format(name: str, value: str | bytes, *, literal: bool = False) -> _Entry:
    """Make a field of a name and a value."""
    if not _NAME.match(name):
        raise ValueError(
            f"{name!r} is not a valid header field name: printable ASCII without space and colon "
            "(RFC 5322, 3.6.8)"
        )
    text = value if isinstance(value, str) else bytes(value).decode("utf-8", "surrogateescape")
    lines = [line.replace("\r", " ") for line in _CALLERS_FOLD.split(text)]
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
    if isinstance(value, str):
        lines = _encode(name, lines, literal)
    raws = [line.encode("utf-8", "surrogateescape") for line in lines]
    raws[0] = b"%s: %s" % (name.encode(), raws[0]) if raws[0] else name.encode() + b":"
    limit = FOLD_BYTES if len(raws) == 1 else MAX_LINE_BYTES
    return _Entry(name.lower(), b"\r\n".join([part for raw in raws for part in _fold(raw, limit)]))


def _encode(name: str, lines: list[str], literal: bool) -> list[str]:
    """Encode a value; if that changes it, it is folded again."""
    value = "".join(lines)
    try:
        encoded = encode(name, _WHITE.sub(_shortened, value), literal=literal)
    except UnicodeEncodeError as error:
        raise ValueError(f"the value of {name} cannot be encoded: {error}") from error
    except ValueError as error:
        raise ValueError(f"the value of {name} cannot be encoded: {error}") from None
    return lines if encoded == value else [encoded]


def _shortened(white: re.Match[str]) -> str:
    return white[0] if len(white[0]) <= _MAX_WHITE else " "


def _fold(line: bytes, limit: int) -> list[bytes]:
    """Cut a line before white space, so that parts have ``limit`` octets at most where they can.

    Right after the field's name it is cut only where the limit of 998 would be passed otherwise:
    there are readers that take such a field as empty.
    """
    if limit == FOLD_BYTES and b"=?" in line:
        limit = FOLD_BYTES_ENCODED
    colon = line.find(b":") + 1
    places = [match.start() for match in _FOLD_PLACE.finditer(line)] + [len(line)]
    if places[0] == colon and len(places) > 1 and places[1] <= MAX_LINE_BYTES:
        del places[0]
    parts = []
    start = last = 0
    for place in places:
        if place - start > limit and last > start:
            parts.append(line[start:last])
            start = last
        last = place
    parts.append(line[start:])
    return parts
