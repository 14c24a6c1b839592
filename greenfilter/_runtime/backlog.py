"""What waits for a busy session, kept small: its lines and reports go to a spool, in pieces.

smtpd waits for the answer to no report, and a client may send its message in packets of one line
each. So any number of them can wait for one handler that takes its time. They may not cost much
memory, and no other session may wait because of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

from .._mail.message import split_lines
from .._mail.spool import Spool
from ..errors import MessageError
from ..protocol import EVENTS, Call, Chunk, Session

# A piece is read back as a whole.
_LINES_BYTES = 64 << 10
_REPORTS_BYTES = 8 << 10
# So many reports stay as they are.
_FEW_REPORTS = 16
# What a report takes in memory while it is not on a spool.
_REPORT_BYTES = 500
# What stands in front of a report on a spool: whether a handler waits for it.
_DELIVER, _KEEP = b"+", b"-"
_EVENTS = {event.wire.encode(): event for event in EVENTS.values()}
_KNOWN = frozenset(EVENTS.values())


class Piece(NamedTuple):
    """Lines on a spool, which lives as long as a piece needs it."""

    spool: Spool
    start: int
    end: int

    def read(self) -> list[bytes]:
        """Return the lines.

        Raises:
            SpoolError: they cannot be read.
        """
        return split_lines(self.spool.read(self.start, self.end))

    def join(self, other: Piece, most: int) -> Piece | None:
        """Return this piece with the one after it, or None if that would be too large."""
        if other.spool is not self.spool or other.start != self.end:
            return None
        return Piece(self.spool, self.start, other.end) if other.end - self.start <= most else None


class Reports:
    """In the queue of a session: a piece of its reports."""

    __slots__ = ("piece",)

    def __init__(self, piece: Piece) -> None:
        self.piece = piece

    def restore(self, session: Session) -> None:
        """Put the reports back at the front of the session's queue.

        Raises:
            SpoolError: they cannot be read.
        """
        items: list[Call | bytes] = []
        for line in self.piece.read():
            kind, line = line[:1], line[1:]
            event = _EVENTS[line.split(b"|", 5)[4]] if kind == _DELIVER else None
            items.append(Call(session, event, line, 0) if event is not None else line)
        session.queue.extendleft(reversed(items))


def shrink(session: Session) -> int:
    """Put what waits for a session on a spool. In the hub; never switches greenlets.

    Returns:
        How many reports and lines the memory still holds; each piece counts as one.
    """
    queue: deque[Any] = session.queue
    few = len(queue) <= _FEW_REPORTS
    kept: list[Any] = []
    for kind, items in groupby(queue, _kind_of):
        if kind is Chunk:
            kept += shrink_lines(items)
        elif kind is Reports and not few:
            kept += _shrink_reports(items, kept)
        else:
            kept += items
    queue.clear()
    queue.extend(kept)
    return len(queue) + _count_lines(kept)


def _kind_of(item: Any) -> type | None:
    """Return what may go to a spool: lines, or reports."""
    if type(item) is Chunk:
        return Chunk
    if type(item) is bytes or type(item) is Reports:
        return Reports
    return Reports if isinstance(item, Call) and item.hook in _KNOWN else None


def _count_lines(items: Iterable[Any]) -> int:
    """Count lines in memory, and what spools keep there."""
    lines = 0
    spools = set()
    for item in items:
        if type(item) is Chunk:
            lines += len(item.lines)
        elif type(item) is Reports:
            spools.add(item.piece.spool)
    return lines + sum(spool.bytes_in_memory for spool in spools) // _REPORT_BYTES


def shrink_lines(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Put the lines of chunks on a spool, and merge chunks of one message.

    Chunks for which there is no room stay as they are.
    """
    kept: list[Chunk] = []
    spool: Spool | None = None
    for chunk in chunks:
        if chunk.spilled is not None:
            spool = chunk.spilled.spool
        elif chunk.lines:
            spool = spool or Spool(memory_bytes=_LINES_BYTES)
            spill(chunk, spool)
        if not (kept and _merge(kept[-1], chunk)):
            kept.append(chunk)
    return kept


def spill(chunk: Chunk, spool: Spool) -> None:
    """Put the lines of a chunk on a spool, if there is room."""
    start = spool.size
    try:
        spool.append(chunk.lines)
    except MessageError:
        return
    chunk.spilled = Piece(spool, start, spool.size)
    chunk.lines = []


def _merge(chunk: Chunk, other: Chunk) -> bool:
    """Make one of two chunks of a message, if their pieces fit together."""
    if chunk.stream is not other.stream or chunk.ended:
        return False
    if other.spilled is None or chunk.spilled is None:
        if other.lines or other.spilled is not None:
            return False
        chunk.ended = other.ended  # a final dot alone
        return True
    joined = chunk.spilled.join(other.spilled, _LINES_BYTES)
    if joined is not None:
        chunk.spilled, chunk.ended = joined, other.ended
    return joined is not None


def _shrink_reports(items: Iterable[Any], before: list[Any]) -> list[Reports]:
    """Put reports on a spool: the one that has those before them, if any."""
    spool = next((item.piece.spool for item in reversed(before) if type(item) is Reports), None)
    kept: list[Reports] = []
    lines: list[bytes] = []
    size = 0
    for item in items:
        if type(item) is Reports:
            spool = _put_reports(kept, lines, spool)
            spool = item.piece.spool
            _add(kept, item.piece)
            continue
        line = _KEEP + item if type(item) is bytes else _DELIVER + item.line
        lines.append(line)
        size += len(line)
        if size >= _REPORTS_BYTES:
            spool = _put_reports(kept, lines, spool)
            size = 0
    _put_reports(kept, lines, spool)
    return kept


def _put_reports(kept: list[Reports], lines: list[bytes], spool: Spool | None) -> Spool | None:
    """Put the lines on the spool as a piece. On a full disk they stay in its memory."""
    if lines:
        spool = spool or Spool(memory_bytes=2 * _REPORTS_BYTES, raises_when_full=False)
        start = spool.size
        spool.append(lines)
        _add(kept, Piece(spool, start, spool.size))
        lines.clear()
    return spool


def _add(kept: list[Reports], piece: Piece) -> None:
    joined = kept[-1].piece.join(piece, _REPORTS_BYTES) if kept else None
    if joined is None:
        kept.append(Reports(piece))
    else:
        kept[-1].piece = joined
