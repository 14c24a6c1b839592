"""What has passed the supervisor unread, until it is read.

Contract: a piece is noted when it is queued, with the time and, for requests, how many bytes the
worker had been given before. Pieces are whole lines, in the order in which they passed. They hold
no lines of messages. Whoever wants to know the state of any session, or to change it, reads the
journal to its end first; it is read on the tick as well, before the oldest request in it can be
late, and when it grows. Sessions that came and went in between need not be read at all.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_CAME = re.compile(rb"\|link-connect\|([0-9a-f]{16})\|")
_WENT = re.compile(rb"\|link-disconnect\|([0-9a-f]{16})\n")
# Each line of a session.
_SESSION = re.compile(rb"\n(?:report|filter)\|[^|\n]*\|[^|\n]*\|[^|\n]*\|[^|\n]*\|([0-9a-f]{16})")

# Read sooner than it would have to be, above this size and age (seconds).
_MOST_BYTES = 1 << 20
_MOST_SECONDS = 1.0


class Piece(NamedTuple):
    """Some lines that went one way.

    Attributes:
        time: when.
        lines: of smtpd's; empty if it is answers.
        position: bytes that the worker had been given before.
        answered: ids of the requests that the worker has answered with proceed.
    """

    time: float
    lines: bytes
    position: int
    answered: list[bytes]


class Journal:
    """The pieces that have not been read yet."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._bytes = 0
        self._oldest = 0.0

    def note_requests(self, now: float, position: int, lines: bytes) -> None:
        """Note lines of smtpd's."""
        if not self._pieces:
            self._oldest = now
        self._pieces.append(Piece(now, lines, position, []))
        self._bytes += len(lines)

    def note_answers(self, now: float, answered: list[bytes]) -> None:
        """Note what a worker has answered with proceed."""
        if not self._pieces:
            self._oldest = now
        self._pieces.append(Piece(now, b"", 0, answered))

    def is_due(self, now: float, shortest: float) -> bool:
        """Return whether it is to be read now.

        Args:
            now: the time.
            shortest: seconds after which a request can be late.
        """
        if not self._pieces:
            return False
        return self._bytes > _MOST_BYTES or now - self._oldest >= min(shortest, _MOST_SECONDS)

    @property
    def is_long(self) -> bool:
        """Whether it has grown so that it should be read."""
        return self._bytes > _MOST_BYTES

    def take(self) -> list[Piece]:
        """Take out all pieces."""
        pieces, self._pieces = self._pieces, []
        self._bytes = 0
        return pieces


def passed_through(pieces: list[Piece]) -> set[bytes]:
    """Return the ids of the sessions that begin and end in these pieces."""
    lines = b"".join([piece.lines for piece in pieces])
    went = set(_WENT.findall(lines))
    return went.intersection(_CAME.findall(lines)) if went else went


def ended_in(pieces: list[Piece]) -> list[bytes]:
    """Return the ids of the sessions that end in these pieces."""
    return [sid for piece in pieces for sid in _WENT.findall(piece.lines)]


def without(pieces: list[Piece], sids: set[bytes]) -> list[Piece]:
    """Return pieces without the lines and answers of some sessions."""
    return [left for piece in pieces if (left := _filter(piece, sids, False)) is not None]


def only(pieces: list[Piece], sids: set[bytes]) -> list[Piece]:
    """Return pieces with the lines and answers of some sessions only."""
    return [left for piece in pieces if (left := _filter(piece, sids, True)) is not None]


def _filter(piece: Piece, sids: set[bytes], wanted: bool) -> Piece | None:
    """Return what a piece says of these sessions, or of all others; None for nothing."""
    if not piece.lines:
        answered = [pair for pair in piece.answered if (pair[:16] in sids) is wanted]
        return Piece(piece.time, b"", 0, answered) if answered else None
    found: list[bytes] = _SESSION.findall(b"\n" + piece.lines)
    lines = piece.lines.split(b"\n")
    if len(found) == len(lines) - 1:
        if not wanted and sids.issuperset(found):
            return None
        kept = [line for line, sid in zip(lines, found, strict=False) if (sid in sids) is wanted]
    else:  # some line makes no sense
        kept = [line for line in lines[:-1] if _is_of(line, sids) is wanted]
    if not kept:
        return None
    return Piece(piece.time, b"\n".join(kept) + b"\n", piece.position, [])


def _is_of(line: bytes, sids: set[bytes]) -> bool:
    found = _SESSION.match(b"\n" + line)
    return found is not None and found[1] in sids
