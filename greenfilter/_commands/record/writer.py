"""The file of a recording, written by a thread, so that no disk can hold up the mail."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import deque

from ..._process.log import logger
from ...protocol._credentials import redact

# What waits for the disk at most; then the recording ends, not the mail.
_MAX_WAITING_BYTES = 64 << 20
# A line that has no end within this much is nobody's.
_MAX_LINE_BYTES = 1 << 20
# How long what was read is gathered before it is written.
_BATCH_SECONDS = 0.05
_WRITE_BYTES = 256 << 10
_END_SECONDS = 5.0

_Piece = tuple[float, bytes, bytes]  # time, b"<" or b">", bytes


class Writer:
    """Writes a recording. When that fails, it says so in the log, once, and writes no more.

    Args:
        path: of the file. It gets mode 0600; what is there is kept, and added to.
        max_bytes: with more than this, the file becomes ``path.1``, and that ``path.2``.
        keep: how many such older files are kept.
    """

    def __init__(self, path: str, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._pieces: deque[_Piece | None] = deque()
        # Each is counted by one thread only, so neither needs a lock.
        self._put_bytes = self._taken_bytes = 0
        self._wake = threading.Event()
        self._fd = -1
        self._size = 0
        self._rest = {b"<": b"", b">": b""}
        self._head: list[bytes] = []
        self._greeted = False
        self.recording = True
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def put(self, direction: bytes, data: bytes) -> None:
        """Record what was just read. Never blocks.

        Args:
            direction: ``b"<"`` from smtpd, ``b">"`` from the filter.
            data: any piece of the stream.
        """
        if not self.recording:
            return
        self._put_bytes += len(data)
        if self._put_bytes - self._taken_bytes > _MAX_WAITING_BYTES:
            # The thread may hang in a write: it cannot say so.
            self._stop(f"more than {_MAX_WAITING_BYTES >> 20} MiB wait for {self._path}")
            return
        self._pieces.append((time.time(), direction, data))
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what waits; for five seconds at most."""
        self._pieces.append(None)
        self._wake.set()
        self._thread.join(_END_SECONDS)

    # In the thread

    def _run(self) -> None:
        try:
            self._open()
            while self._write_batch():
                pass
        except _Stop as reason:
            self._stop(str(reason))
        except OSError as error:
            self._stop(f"{self._path}: {error.strerror}")
        except Exception as error:  # whatever it is, the mail goes on
            self._stop(f"{self._path}: {error!r}")
        self.recording = False
        self._pieces.clear()
        if self._fd >= 0:
            os.close(self._fd)

    def _stop(self, reason: str) -> None:
        self.recording = False
        logger.error("recording stopped, the mail goes on: %s", reason)

    def _write_batch(self) -> bool:
        """Write what was read until now; return whether there will be more."""
        self._wake.wait()
        if not self._pieces or self._pieces[-1] is not None:
            time.sleep(_BATCH_SECONDS)
        self._wake.clear()
        batch: list[bytes] = []
        size = 0
        ended = False
        while self._pieces:
            piece = self._pieces.popleft()
            if piece is None:
                ended = True
                continue
            batch.append(self._lines(*piece))
            self._taken_bytes += len(piece[2])
            size += len(batch[-1])
            if size > _WRITE_BYTES:
                self._write(b"".join(batch))
                batch.clear()
                size = 0
        self._write(b"".join(batch))
        return self.recording and not ended

    def _lines(self, when: float, direction: bytes, data: bytes) -> bytes:
        """Return the lines that end in a piece, as they are recorded."""
        lines, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._rest[direction] += rest
            if len(self._rest[direction]) > _MAX_LINE_BYTES:
                raise _Stop(f"a line of more than {_MAX_LINE_BYTES >> 20} MiB")
            return b""
        lines, self._rest[direction] = redact(self._rest[direction] + lines, keep_user=True), rest
        prefix = b"%.6f %b " % (when, direction)
        # Joined, not added: the pages of one more copy take 0.1 us for each line.
        text = b"".join((prefix, lines.replace(b"\n", b"\n" + prefix), b"\n"))
        if not self._greeted:
            self._keep_handshake(text)
        return text

    def _keep_handshake(self, text: bytes) -> None:
        for line in text.splitlines(keepends=True):
            if not self._greeted:
                self._head.append(line)
                self._greeted = line.endswith(b" > register|ready\n")

    def _write(self, text: bytes) -> None:
        if self._greeted and self._size and self._size + len(text) > self._max_bytes:
            self._rotate()
            if not text.startswith(self._head[0]):
                text = b"".join(self._head) + text
        begin = self._size
        try:
            while text:
                written = os.write(self._fd, text)
                self._size += written
                text = text[written:]
        except OSError:
            # Half a line would make the file unreadable.
            os.ftruncate(self._fd, begin)
            raise

    def _open(self) -> None:
        # Not blocking: a FIFO would wait for a reader.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        self._fd = os.open(self._path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise _Stop(f"{self._path} is not a file")
        os.fchmod(self._fd, 0o600)
        self._size = _whole_lines(self._fd)
        os.ftruncate(self._fd, self._size)

    def _rotate(self) -> None:
        os.close(self._fd)
        self._fd = -1
        for number in range(self._keep, 0, -1):
            older = f"{self._path}.{number - 1}" if number > 1 else self._path
            if os.path.exists(older):
                os.replace(older, f"{self._path}.{number}")
        if not self._keep:
            os.unlink(self._path)
        self._open()


class _Stop(Exception):
    """Nothing more can be recorded."""


def _whole_lines(fd: int) -> int:
    """Return the size of a file without a last line that a crash cut short."""
    end = os.fstat(fd).st_size
    while end:
        begin = max(0, end - 65_536)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
