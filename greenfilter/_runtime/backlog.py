"""What waits in the queue of a busy session: small in memory, and on disk past some size.

Nobody waits for the answer to a report, so smtpd sends them on while a handler takes its time; and
lines of a message come in pieces of any size. So ten times a second the queue of each busy session
is packed: its lines go to a spool, and of its events all but the first ones become lines on a spool
too. Requests stay as they are: smtpd sends no second one before the first is answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from .._filter.context import Context
from .._mail.message import split_lines
from .._mail.spool import Spool
from ..errors import MessageError
from ..protocol import EVENTS, Chunk, Session

# Events at the front of a queue that stay as they are; as many are taken back at once.
KEPT_EVENTS = 100
# What is on a spool is in memory up to this size (bytes).
_SPILL_BYTES = 64 << 10
# Chunks are joined up to this size, since a chunk is read back as a whole (bytes).
_CHUNK_BYTES = 256 << 10
# What one session may have on disk in events: a million of them (bytes).
_MAX_EVENT_BYTES = 64 << 20
_EVENTS = {event.wire.encode(): event for event in EVENTS.values()}


class Backlog:
    """Consecutive reports of one session, in an item of its queue."""

    def __init__(self) -> None:
        self._spool = Spool(memory_bytes=_SPILL_BYTES, max_bytes=_MAX_EVENT_BYTES)
        self._position = 0

    def add(self, items: list[bytes | Context]) -> bool:
        """Take reports, those for a handler and those that are only state; tell if it could."""
        lines = [b" " + each if isinstance(each, bytes) else b"!" + each.line for each in items]
        try:
            self._spool.append(lines)
        except MessageError:
            return False  # no room: they stay in memory, where they are counted
        return True

    def take_back(self, session: Session) -> None:
        """Put the next of them at the front of the session's queue, and itself behind them.

        Raises:
            SpoolError: they cannot be read.
        """
        lines, self._position = self._spool.read_lines(self._position, _SPILL_BYTES // 8)
        if self._position < self._spool.size:
            session.queue.appendleft(self)
        else:
            self._spool.close()
        session.queue.extendleft([_item(session, line) for line in reversed(lines)])


def _item(session: Session, line: bytes) -> bytes | Context:
    report = line[1:]
    if line[:1] == b" ":
        return report
    return Context(session, _EVENTS[report.split(b"|", 5)[4]], report, 0)


def pack(queue: deque[Any]) -> None:
    """Make the queue of a busy session small. Never switches greenlets."""
    _spill_lines(queue)
    if len(queue) <= KEPT_EVENTS:
        return
    items = iter(list(queue))
    queue.clear()
    for _, item in zip(range(KEPT_EVENTS), items, strict=False):
        _append(queue, item)
    for group in _groups(items):
        if isinstance(group, list):
            _append_reports(queue, group)
        else:
            _append(queue, group)


def _groups(items: Iterator[Any]) -> Iterator[Any]:
    """Give reports that follow each other as lists, and all other items alone."""
    reports: list[bytes | Context] = []
    for item in items:
        if _is_report(item):
            reports.append(item)
            continue
        if reports:
            yield reports
            reports = []
        yield item
    if reports:
        yield reports


def _is_report(item: Any) -> bool:
    if isinstance(item, Context):
        return item.token is None and item.hook in _EVENTS.values()
    return type(item) is bytes


def _append_reports(queue: deque[Any], reports: list[bytes | Context]) -> None:
    last = queue[-1]
    if type(last) is Backlog and last.add(reports):
        return
    backlog = Backlog()
    if backlog.add(reports):
        queue.append(backlog)
    else:
        queue.extend(reports)


def _append(queue: deque[Any], item: Any) -> None:
    last = queue[-1] if queue else None
    if not (type(last) is Chunk and type(item) is Chunk and _join(last, item)):
        queue.append(item)


# Lines of messages


def _spill_lines(queue: deque[Any]) -> None:
    spool: Spool | None = None
    for item in queue:
        if type(item) is Chunk:
            if item.spilled is not None:
                spool = item.spilled.spool
            elif item.lines:
                spool = spool or Spool(memory_bytes=_SPILL_BYTES)
                spill(item, spool)


def spill(chunk: Chunk, spool: Spool) -> None:
    """Put the lines of a waiting chunk on a spool, from which it gets them when it is their turn.

    The spool lives as long as a chunk needs it.
    """
    start = spool.size
    try:
        spool.append(chunk.lines)
    except MessageError:
        return  # no room on disk either: they stay in memory
    chunk.spilled = _Spilled(spool, start, spool.size)
    chunk.lines = []


def _join(chunk: Chunk, more: Chunk) -> bool:
    """Have a chunk take the lines of the next one of its message; tell whether it did."""
    first, second = chunk.spilled, more.spilled
    if chunk.stream is not more.stream or chunk.ended or first is None or second is None:
        return False
    if first.spool is not second.spool or first.end != second.start:
        return False
    if second.end - first.start > _CHUNK_BYTES:
        return False
    chunk.spilled = first._replace(end=second.end)
    chunk.ended = more.ended
    return True


class _Spilled(NamedTuple):
    """Where the lines of a chunk are."""

    spool: Spool
    start: int
    end: int

    def __call__(self) -> list[bytes]:
        return split_lines(self.spool.read(self.start, self.end))
