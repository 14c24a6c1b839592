"""The bytes of one message: first in memory, then in a temporary file."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..errors import MessageTooBig, SpoolError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

CRLF: Final = b"\r\n"
BATCH_BYTES: Final = 65536


class Content(ABC):
    """Lines of mail, each ended by CRLF, that are read by position.

    No line holds an LF, so CRLF stands at the ends of lines only, even where a line ends in CR.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes in all, line ends included."""

    @abstractmethod
    def read(self, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes from ``start`` up to ``end``, or to the end of what is there.

        Args:
            start: position of the first byte, from 0.
            end: position after the last byte. None, or one past the end, is the end.

        Raises:
            SpoolError: the content cannot be read, or its spool is closed.
        """

    def read_lines(self, position: int, batch_bytes: int = BATCH_BYTES) -> tuple[list[bytes], int]:
        """Return the lines from a position on, and the position after them. Never switches.

        Lines may be appended between two calls: what follows is found by the next one.

        Args:
            position: 0, or a position that an earlier call returned.
            batch_bytes: most bytes to return, doubled until the first line fits in whole.

        Returns:
            Whole lines without their ends, none where nothing follows, and the new position.

        Raises:
            SpoolError: the content cannot be read, or its spool is closed.
        """
        while True:
            data = self.read(position, position + batch_bytes)
            lines = data.split(CRLF)
            rest = lines.pop()
            if lines or len(data) < batch_bytes:
                return lines, position + len(data) - len(rest)
            batch_bytes *= 2

    def batches(self, start: int = 0, batch_bytes: int = BATCH_BYTES) -> Iterator[list[bytes]]:
        """Yield all lines from a position on, in batches. Arguments as :meth:`read_lines`.

        Ends where the content ends at that time. Memory holds one batch. Never switches.
        """
        lines, position = self.read_lines(start, batch_bytes)
        while lines:
            yield lines
            lines, position = self.read_lines(position, batch_bytes)

    def open(self) -> io.BufferedReader:
        """Return a file object over the content: read only, seekable, with its own position.

        It reads through to the content and keeps one buffer of it. It has no ``fileno()``. Reading
        raises SpoolError once the spool is closed.
        """
        return io.BufferedReader(_Reader(self), BATCH_BYTES)


class Spool(Content):
    """The lines of one message, kept until :meth:`close`.

    One thread or greenlet may append while others read. Nothing here switches greenlets.

    Args:
        memory_bytes: what is above this size goes to a temporary file, which has no name, mode
            0600, and is not inherited by child processes.
        max_bytes: the largest message; None is without limit.
        directory: where the temporary file is made; None is what :mod:`tempfile` chooses.
        raises_when_full: False keeps in memory what the temporary file has no room for.
    """

    __slots__ = (
        "_directory",
        "_max_bytes",
        "_raises_when_full",
        "_state",
        "_tail_bytes",
        "_why_gone",
    )

    def __init__(
        self,
        *,
        memory_bytes: int = 1 << 20,
        max_bytes: int | None = None,
        directory: str | None = None,
        raises_when_full: bool = True,
    ) -> None:
        self._tail_bytes = memory_bytes
        self._max_bytes = max_bytes
        self._directory = directory
        self._raises_when_full = raises_when_full
        self._why_gone = "the message is gone: its spool was closed"
        # The file, the bytes in it, and the bytes that follow them; None when closed. Replaced as
        # one, so that a thread which reads meanwhile sees all of one state.
        self._state: tuple[_File | None, int, bytearray] | None = (None, 0, bytearray())

    @property
    def size(self) -> int:
        """Bytes in all, line ends included; 0 when closed."""
        state = self._state
        return state[1] + len(state[2]) if state else 0

    @property
    def bytes_in_memory(self) -> int:
        """Bytes that are not in the temporary file."""
        return len(self._state[2]) if self._state else 0

    def append(self, lines: list[bytes]) -> None:
        """Add lines at the end.

        Args:
            lines: without line end and dot-stuffing. They may hold any byte but LF and NUL.

        Raises:
            MessageTooBig: the message would pass ``max_bytes``; nothing was stored.
            SpoolError: the temporary file cannot be made or written, or the spool is closed.
            After either the spool is closed and empty.
        """
        _, filed, tail = self._current()
        data = CRLF.join((*lines, b""))
        if self._max_bytes is not None and filed + len(tail) + len(data) > self._max_bytes:
            self.close()
            raise MessageTooBig(f"the message is above the limit of {self._max_bytes} bytes")
        tail += data
        if len(tail) > self._tail_bytes:
            self._flush()

    def read(self, start: int = 0, end: int | None = None) -> bytes:
        """Read, as :meth:`Content.read` says."""
        file, filed, tail = self._current()
        end = filed + len(tail) if end is None else max(start, end)
        if file is None or start >= filed:
            return bytes(tail[start - filed : end - filed])
        try:
            data = file.read(start, min(end, filed))
        except OSError as error:
            raise SpoolError(
                f"cannot read the message back from {self._where()}: {error}"
            ) from error
        return data + tail[: end - filed] if end > filed else data

    def close(self) -> None:
        """Free memory and file. The content is gone; closing again does nothing."""
        state, self._state = self._state, None
        if state and state[0]:
            state[0].discard()

    def _current(self) -> tuple[_File | None, int, bytearray]:
        if self._state is None:
            raise SpoolError(self._why_gone)
        return self._state

    def _flush(self) -> None:
        """Move the tail to the file."""
        file, filed, tail = self._current()
        try:
            if file is None:
                file = _File(self._directory)
                self._state = (file, 0, tail)
            file.write(tail, filed)
        except OSError as error:
            if not self._raises_when_full:
                return  # the next append tries again
            self.close()
            self._why_gone = self._cannot_write(error, filed + len(tail))
            raise SpoolError(self._why_gone) from error
        # Small appends are collected, for a system call costs more than they do.
        self._tail_bytes = min(self._tail_bytes, BATCH_BYTES)
        self._state = (file, filed + len(tail), bytearray())

    def _cannot_write(self, error: OSError, size: int) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free space there or use a larger file system (TMPDIR)"
        elif error.errno == errno.EFBIG:
            advice = "raise the file size limit of the process (RLIMIT_FSIZE)"
        elif error.errno in (errno.EMFILE, errno.ENFILE):
            advice = "raise the limit of open files (RLIMIT_NOFILE)"
        else:
            advice = "give a directory that exists and can be written (TMPDIR)"
        return (
            f"cannot keep a message of {size} bytes in {self._where()}: "
            f"{error.strerror or error}; {advice}"
        )

    def _where(self) -> str:
        return self._directory or tempfile.tempdir or "the temporary directory"


class _File:
    """A temporary file read and written by position.

    Its space is given back by :meth:`discard`, its descriptor when the last user lets go of it: a
    close while another thread reads would let that thread read whatever file gets the same
    descriptor next.
    """

    __slots__ = ("_file",)

    def __init__(self, directory: str | None) -> None:
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115

    def __del__(self) -> None:
        # Not there where TemporaryFile raised.
        if hasattr(self, "_file"):
            self._file.close()

    def discard(self) -> None:
        with suppress(OSError):
            os.ftruncate(self._file.fileno(), 0)

    def read(self, start: int, end: int) -> bytes:
        data = os.pread(self._file.fileno(), end - start, start)
        # Linux moves at most 2 GiB in one call.
        while len(data) < end - start:
            more = os.pread(self._file.fileno(), end - start - len(data), start + len(data))
            if not more:
                raise OSError(errno.EIO, "the temporary file was cut short")
            data += more
        return data

    def write(self, data: bytearray, position: int) -> None:
        # A disk that is nearly full takes a part first, and says so at the next call.
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                done += os.pwrite(self._file.fileno(), view[done:], position + done)


class _Reader(io.RawIOBase):
    """A file object's view of a Content; io.BufferedReader does the rest."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._content.read(self._position, self._position + len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        data = self._content.read(self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._content.size}
        if whence not in origin:
            raise ValueError(f"whence is SEEK_SET, SEEK_CUR or SEEK_END, not {whence!r}")
        if origin[whence] + offset < 0:
            raise ValueError(f"position {origin[whence] + offset} is before the start")
        self._position = origin[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position
