"""The page where a worker marks whose code it runs, for the supervisor to read at its death.

Theory of operation: the supervisor makes a page of memory and hands it to the worker. It has a
slot for the loop's thread and one for each thread of the pool. A slot holds the id of a session
for as long as control is in code that runs for that session, and zeros otherwise; behind the id
stands which report's handler it is, if it is one.

* When a greenlet begins with a session, it writes the id, and when the hub has control again the
  slot is cleared. Filters whose handlers never block pay no more (16 bytes into a mapping).
* While any handler is blocked, the greenlets are traced (``greenlet.settrace``): each time that
  control goes into one, the slot gets the id of its session, or zeros. So what is marked is who
  runs, not who was called last.
* A thread of the pool marks its own slot for each call that it makes.

Behind the slots stands how much the worker has read of its socket: requests that lie behind that
it has not begun.

Nothing is marked for greenlets and threads that the author has started.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator

from ..protocol import EVENTS

SLOT_BYTES = 32
SID_BYTES = 16
_SIZE = 64 << 10  # of the slots; pages that are never touched cost nothing
SLOTS = _SIZE // SLOT_BYTES
NOBODY = bytes(SLOT_BYTES)
_COUNT = slice(_SIZE, _SIZE + 8)
_WHOLE = _SIZE + 8

_EVENTS = list(EVENTS.values())
_NUMBERS = {f"report.{name}": number for number, name in enumerate(EVENTS, 1)}


def make() -> int:
    """Make a page to share. In memory if possible: on a full disk, writing to it would be fatal.

    Returns:
        A file descriptor.

    Raises:
        OSError: the system has none.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("greenfilter")
        os.ftruncate(fd, _WHOLE)
        return fd
    with tempfile.TemporaryFile() as file:
        file.write(bytes(_WHOLE))
        file.flush()
        return os.dup(file.fileno())


def take(fd: int) -> mmap.mmap:
    """Map a page that was made with :func:`make`."""
    return mmap.mmap(fd, _WHOLE)


def note_read(page: mmap.mmap, count: int) -> None:
    """Leave the number of bytes that were read of the socket."""
    page[_COUNT] = count.to_bytes(8, "little")


def bytes_read(page: mmap.mmap) -> int:
    """Return the number of bytes that the worker had read when it last read any."""
    return int.from_bytes(page[_COUNT], "little")


def free_slots(page: mmap.mmap | None) -> list[int]:
    """Return the slots that the threads of a pool may take; the first one is the loop's."""
    return list(range(SLOTS - 1, 0, -1)) if page is not None else []


def number_of(hook: str) -> int:
    """Return the number that stands for a report's handler behind the session's id; else 0."""
    return _NUMBERS.get(hook, 0)


def marked(page: mmap.mmap) -> Iterator[tuple[bytes, str | None]]:
    """Read a page.

    Yields:
        The id of each session whose code ran, and the report, if its handler was what ran.
    """
    for start in range(0, _SIZE, SLOT_BYTES):
        sid = page[start : start + SID_BYTES]
        if sid != NOBODY[:SID_BYTES]:
            number = page[start + SID_BYTES]
            known = 0 < number <= len(_EVENTS)
            yield sid, _EVENTS[number - 1].wire if known else None
