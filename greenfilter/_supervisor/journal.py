"""What has passed the supervisor unread, until it is read.

Contract: a piece is noted when it is queued, with the time and, for requests, how many bytes the
worker had been given before. Pieces are whole lines, in the order in which they passed. They hold
no lines of messages. Whoever wants to know the state of any session, or to change it, reads the
journal to its end first; it is read on the tick as well, before the oldest request in it can be
late, and when it grows.
"""

from __future__ import annotations

from typing import NamedTuple

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
    """The pieces that nobody has read yet."""

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
        """Tell whether it is to be read now.

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
