"""The lines of one message on their way through a worker, or around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol import Chunk, Stream

if TYPE_CHECKING:
    from .process import WorkerProcess

# More of a header is not needed to know a message again by.
_MAX_HEADER_BYTES = 64 << 10


class Passage:
    """The way that the lines of one message take.

    Attributes:
        worker: the worker that gets them; None: they go back to smtpd unchanged.
        prefix: what each line begins with on its way to the worker.
        header: the first lines, to know the message again by.
        header_ended: no more of them are kept.
        held: chunks that wait until the header is known and, if the message is suspected, for
            quarantine.
        held_bytes: their size.
        suspected: a worker has ended of it, perhaps, before its header was known.
        waits: it has been sent to quarantine.
    """

    __slots__ = (
        "_room",
        "header",
        "header_ended",
        "held",
        "held_bytes",
        "prefix",
        "suspected",
        "waits",
        "worker",
    )

    def __init__(self, worker: WorkerProcess | None, stream: Stream) -> None:
        self.worker = worker
        self.prefix = b"|".join(stream.line.split(b"|", 7)[:7]) + b"|"
        self.header: list[bytes] = []
        self.header_ended = False
        self.held: list[Chunk] | None = None
        self.held_bytes = 0
        self.suspected = False
        self.waits = False
        self._room = _MAX_HEADER_BYTES

    def hold(self, chunk: Chunk) -> None:
        """Keep a chunk for later."""
        if self.held is not None:
            self.held.append(chunk)
            self.held_bytes += sum(map(len, chunk.lines)) + len(chunk.lines)

    def note_header(self, chunk: Chunk) -> None:
        """Keep the lines of the header."""
        for line in chunk.lines:
            self._room -= len(line) + 1
            if not line or self._room < 0:
                self.header_ended = True
                return
            self.header.append(line)
        self.header_ended = chunk.ended

    def to_worker(self, lines: list[bytes], ended: bool) -> bytes:
        """Write lines as smtpd did."""
        out = b""
        if lines:
            out = self.prefix + (b"\n" + self.prefix).join(lines) + b"\n"
        if ended:
            out += self.prefix + b".\n"
        return out


def passage_of(stream: Stream | None) -> Passage | None:
    """Return the passage of a message."""
    passage = stream.consumer if stream is not None else None
    return passage if isinstance(passage, Passage) else None
