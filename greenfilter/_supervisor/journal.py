"""What has passed the supervisor unread, until it is read.

Contract: a piece is noted when it is queued, with the time and, for requests, how many bytes the
worker had been given before. Pieces are whole lines, in the order in which they passed. They hold
no lines of messages; what goes to several workers is a piece for each of them. Whoever wants to
know the state of any session, or to change it, reads the journal to its end first; it is read on
the tick as well, before the oldest request in it can be late, and when it grows. Sessions that came
and went in between need not be read at all.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .process import WorkerProcess

# A session's first line or its last; a client can say what looks like one, but not at a beginning.
_CAME_OR_WENT = re.compile(
    rb"\nreport\|[^|\n]*\|[^|\n]*\|[^|\n]*\|link-(disc|c)onnect\|([0-9a-f]{16})(?=[|\n])"
)
_CAME, _WENT = b"c", b"disc"
# Each line of a session.
_SESSION = re.compile(rb"\n(?:report|filter)\|[^|\n]*\|[^|\n]*\|[^|\n]*\|[^|\n]*\|([0-9a-f]{16})")

# Read sooner than it would have to be, above this size and age (seconds).
_MOST_BYTES = 1 << 20
_MOST_SKIPPED_BYTES = 1 << 18
_MOST_SECONDS = 1.0


class Piece:
    """Some lines that went one way.

    Attributes:
        time: when.
        worker: who was given them, or has given them.
        lines: of smtpd's; empty if it is answers.
        position: bytes that the worker had been given before.
        answered: ids of the requests that the worker has answered with proceed.
    """

    __slots__ = ("answered", "lines", "position", "time", "worker")

    def __init__(
        self,
        time: float,
        worker: WorkerProcess,
        lines: bytes,
        position: int,
        answered: list[bytes],
    ) -> None:
        self.time = time
        self.worker = worker
        self.lines = lines
        self.position = position
        self.answered = answered


class Journal:
    """The pieces that have not been read yet."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._bytes = 0
        self._oldest = 0.0

    def note_requests(self, now: float, worker: WorkerProcess, lines: bytes) -> None:
        """Note lines of smtpd's that a worker is about to be given."""
        if not self._pieces:
            self._oldest = now
        self._pieces.append(Piece(now, worker, lines, worker.link.given, []))
        self._bytes += len(lines)

    def note_answers(self, now: float, worker: WorkerProcess, answered: list[bytes]) -> None:
        """Note what a worker has answered with proceed."""
        if not self._pieces:
            self._oldest = now
        self._pieces.append(Piece(now, worker, b"", 0, answered))

    def is_due(self, now: float, shortest: float) -> bool:
        """Return whether it is to be read now.

        Args:
            now: the time.
            shortest: seconds after which a request can be late.
        """
        if not self._pieces:
            return False
        return self.is_long or now - self._oldest >= min(shortest, _MOST_SECONDS)

    @property
    def is_long(self) -> bool:
        """Whether it has grown so that it should be read."""
        return self._bytes > _MOST_BYTES

    def take(self) -> list[Piece]:
        """Take out all pieces."""
        pieces, self._pieces = self._pieces, []
        self._bytes = 0
        return pieces


class Skipped:
    """The last pieces with sessions that nobody has looked at: their handlers may still run."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self._bytes = 0

    def add(self, pieces: list[Piece]) -> None:
        """Add pieces; the oldest go when there are too many."""
        self._pieces.extend(pieces)
        self._bytes += sum(len(piece.lines) for piece in pieces)
        while self._bytes > _MOST_SKIPPED_BYTES:
            self._bytes -= len(self._pieces.popleft().lines)

    def clear(self) -> None:
        """Forget all."""
        self._pieces.clear()
        self._bytes = 0

    def of(self, sids: set[bytes]) -> list[Piece]:
        """Return what the pieces say of some sessions."""
        return only(list(self._pieces), sids)


def sessions_of(lines: bytes) -> list[bytes]:
    """Return the id of each line's session, in order; fewer than lines if one makes no sense."""
    found: list[bytes] = _SESSION.findall(b"\n" + lines)
    return found


def departures(lines: bytes) -> tuple[set[bytes], set[bytes]]:
    """Return the ids of the sessions that have ended in whole lines.

    Returns:
        Those that began in them as well, and all. An id that has begun again is in neither.
    """
    found: list[tuple[bytes, bytes]] = _CAME_OR_WENT.findall(b"\n" + lines)
    last = {sid: what for what, sid in found}
    went = {sid for sid, what in last.items() if what == _WENT}
    first = {sid: what for what, sid in reversed(found)} if went else {}
    return {sid for sid in went if first[sid] == _CAME}, went


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
        return Piece(piece.time, piece.worker, b"", 0, answered) if answered else None
    lines = piece.lines.split(b"\n")
    lines.pop()
    found = sessions_of(piece.lines)
    if len(found) == len(lines):
        if not wanted and sids.issuperset(found):
            return None
        kept = [line for line, sid in zip(lines, found, strict=True) if (sid in sids) is wanted]
    else:  # some line makes no sense
        kept = [line for line in lines if _is_of(line, sids) is wanted]
    if not kept:
        return None
    return Piece(piece.time, piece.worker, b"\n".join(kept) + b"\n", piece.position, [])


def _is_of(line: bytes, sids: set[bytes]) -> bool:
    found = _SESSION.match(b"\n" + line)
    return found is not None and found[1] in sids
