"""Standard error, written without ever waiting for its reader.

smtpd reads a filter's stderr line by line. At a line of 64 KiB or more it stops reading for good,
and keeps the socket open: whoever writes to it then waits for ever.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import select
import selectors
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from . import log

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

LONGEST_LINE = 4096
_MAX_PENDING = 4 << 20
_READ_BYTES = 65536
# A pipe is read to its end in this many pieces at most: a child of the writer's may go on writing.
_LAST_READS = 64
# How long the end of a process waits for the reader of the log.
_END_SECONDS = 0.5
_IS_CLEAN = re.compile(rb"[ -~]*").fullmatch
# Control characters, and those that break lines or turn the direction of what follows.
_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")


def clean(line: bytes) -> bytes:
    """Escape what a terminal or a reader of logs could take for a command of its own."""
    if _IS_CLEAN(line):
        return line
    text = line.decode("utf-8", "backslashreplace")
    return _UNCLEAN.sub(lambda found: ascii(found[0])[1:-1], text).encode("utf-8")


class Lines:
    """Cuts a stream of bytes into lines that can be logged. Keeps at most one line's beginning."""

    def __init__(self) -> None:
        self._begun = b""
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take a piece, and return the lines that it ends, each with its newline."""
        *whole, rest = data.split(b"\n")
        lines = []
        for line in whole:
            if self._size:
                self._add(line)
                lines.append(self._take())
            else:
                lines.append(_finish(line, len(line)))
        self._add(rest)
        return lines

    def end(self) -> list[bytes]:
        """Return the last line, if it has no end."""
        return [self._take()] if self._size else []

    def _add(self, data: bytes) -> None:
        self._begun += data[: LONGEST_LINE - len(self._begun)]
        self._size += len(data)

    def _take(self) -> bytes:
        line = _finish(self._begun, self._size)
        self._begun, self._size = b"", 0
        return line


def _finish(line: bytes, size: int) -> bytes:
    if size <= LONGEST_LINE:
        return clean(line.removesuffix(b"\r")) + b"\n"
    return clean(line[:LONGEST_LINE]) + b"... [cut, %s bytes]\n" % f"{size:,}".encode()


class Sink:
    """The true stderr. Takes lines at once, and writes them when its reader lets it.

    Lines that do not fit are counted, and the count is logged when there is room again.

    Args:
        fd: to write to. The sink owns it.

    Attributes:
        fd: as given.
        stuck: something waits to be written; call :meth:`flush` when the descriptor is ready.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._mode = os.fstat(fd).st_mode
        self._socket = socket.socket(fileno=fd) if stat.S_ISSOCK(self._mode) else None
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._pending = bytearray()
        self._lost = 0

    @property
    def stuck(self) -> bool:
        """Whether something waits."""
        return len(self._pending) > 0

    def put(self, lines: list[bytes]) -> None:
        """Take lines, each with its newline."""
        for line in lines:
            if self._lost or len(self._pending) + len(line) > _MAX_PENDING:
                self._lost += 1
            else:
                self._pending += line
        self.flush()

    def flush(self) -> None:
        """Write as much as can be written without waiting."""
        while self._pending:
            try:
                written = self._write(self._pending)
            except BlockingIOError:
                return
            except OSError:  # nobody reads it any more, or the disk is full
                self._lost += self._pending.count(b"\n")
                self._pending.clear()
                return
            if not written:
                return
            del self._pending[:written]
            if self._lost and len(self._pending) < _MAX_PENDING // 2:
                self._tell_lost()

    def close(self, seconds: float = _END_SECONDS) -> None:
        """Write what waits, as far as its reader takes it within some time."""
        end = time.monotonic() + seconds
        while self._pending and (left := end - time.monotonic()) > 0:
            self._poll.poll(left * 1000)
            self.flush()

    def _write(self, data: bytearray) -> int:
        piece = bytes(data[:_READ_BYTES])
        if self._socket is not None:
            return self._socket.send(piece, socket.MSG_DONTWAIT)
        # The descriptor is shared with others, who would not expect O_NONBLOCK: a pipe that is
        # ready takes so much without waiting.
        ready = self._poll.poll(0)
        return os.write(self.fd, piece[: select.PIPE_BUF]) if ready else 0

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, 0
        line = log.format_line(f"{lost:,} lines of the log were lost, because nobody read it")
        self._pending += line.encode("utf-8", "backslashreplace") + b"\n"


class Pipe:
    """The reading end of a pipe that another process has as its stderr.

    Args:
        selector: of the loop that reads it.
        fd: to read from. The pipe owns it.
        sink: gets the lines.
    """

    def __init__(self, selector: selectors.BaseSelector, fd: int, sink: Sink) -> None:
        os.set_blocking(fd, False)
        self._selector = selector
        self._fd = fd
        self._sink = sink
        self._lines = Lines()
        self.closed = False
        selector.register(fd, selectors.EVENT_READ, self)

    def on_event(self, mask: int) -> None:
        """Read one piece: whoever else waits for the loop has its turn after each."""
        self.read()

    def read(self) -> bool:
        """Read one piece; return whether there was one."""
        if self.closed:
            return False
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._sink.put(self._lines.feed(data))
        else:
            self.close()
        return bool(data)

    def end_line(self) -> None:
        """Read what is there, with a last line that has no end: its writer has ended.

        A child of the writer's that lives on is still read afterwards.
        """
        for _ in range(_LAST_READS):
            if not self.read():
                break
        self._sink.put(self._lines.end())

    def close(self) -> None:
        """Stop reading."""
        if not self.closed:
            self.closed = True
            self._selector.unregister(self._fd)
            os.close(self._fd)
            self._sink.put(self._lines.end())


class Outlet:
    """Lets a loop of selectors write what a sink could not write at once.

    Args:
        selector: of the loop.
        sink: to look after.
    """

    def __init__(self, selector: selectors.BaseSelector, sink: Sink) -> None:
        self._selector = selector
        self._sink = sink
        self._watched = False

    def on_event(self, mask: int) -> None:
        """Write."""
        self._sink.flush()
        self.watch()

    def watch(self) -> None:
        """Begin or stop to wait for the descriptor. Call it in each turn of the loop."""
        if self._sink.stuck != self._watched:
            self._watched = not self._watched
            if self._watched:
                self._selector.register(self._sink.fd, selectors.EVENT_WRITE, self)
            else:
                self._selector.unregister(self._sink.fd)


class _Raw(io.RawIOBase):
    """What is written to ``sys.stderr`` in the process that has the sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lines = Lines()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Take bytes, and never wait."""
        piece = bytes(data)
        self._sink.put(self._lines.feed(piece))
        return len(piece)


def take_over(lowest: int) -> Sink:
    """Make ``sys.stderr`` of this process one that never waits.

    Args:
        lowest: descriptor to use for the true one, at least.
    """
    sink = Sink(fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, lowest))
    sys.stderr = io.TextIOWrapper(
        _Raw(sink),
        encoding="utf-8",
        errors="backslashreplace",
        write_through=True,
    )
    return sink


def drain_in_a_process(fds: tuple[int, int], lowest: int) -> None:
    """Replace fds 1 and 2 of this process by a pipe that another process passes on to stderr.

    A thread could not do it: what holds the interpreter's lock while it writes would wait for the
    thread, which waits for the lock; and the last words of a crash would be lost. The other
    process is nobody's child, so that no ``wait()`` of the author's meets it, and ends when nobody
    has the pipe open any more.

    Args:
        fds: of smtpd, which the other process must not keep open.
        lowest: descriptor to use for the true stderr, at least.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.fork() == 0:
                for fd in {*fds, write}:
                    os.close(fd)
                _drain(read, lowest)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(read)
    for fd in (1, 2):
        os.dup2(write, fd)
    os.close(write)


def _drain(read: int, lowest: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    selector = selectors.DefaultSelector()
    sink = take_over(lowest)
    os.dup2(0, 1)
    os.dup2(0, 2)
    pipe, outlet = Pipe(selector, read, sink), Outlet(selector, sink)
    while not pipe.closed:
        outlet.watch()
        for key, mask in selector.select():
            on_event: Callable[[int], None] = key.data.on_event
            with suppress(OSError):
                on_event(mask)
    sink.close()
