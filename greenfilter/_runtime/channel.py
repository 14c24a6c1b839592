"""The only reader and writer of smtpd's socket.

Everything runs in the hub of one thread, so nothing here needs a lock: another thread that has
bytes for smtpd hands them to the hub (:meth:`Channel.send_threadsafe`).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from .._waiting import FromThreads

# The system's own: what the hub calls may not wait.
_read = get_original("os", "read")
_write = get_original("os", "write")
# Measured: larger reads were slower.
_READ_BYTES = 65536
# A writer of a long message waits above this, so that memory stays bounded.
_HIGH_BYTES = 1 << 20
# How often it is seen whether smtpd has ended while nothing is read.
_LOOK_SECONDS = 0.1


class Channel:
    """smtpd's socket: reads in pieces, writes whole batches.

    Args:
        fds: to read from and to write to; one socket for both under smtpd. The channel owns them.
        receive: is given each piece of input, in the hub. It must not switch greenlets.
        ended: is called once, in the hub, when smtpd has closed its end.
        vital: wraps what the loop calls, so that nothing that it raises leaves the channel deaf.

    Attributes:
        from_threads: calls functions in the loop for other threads, until the channel is closed.
        urgent: set from any thread while the loop is kept: what is sent next leaves at once, and
            these bytes with it.
    """

    def __init__(
        self,
        fds: tuple[int, int],
        receive: Callable[[bytes], None],
        ended: Callable[[], None],
        vital: Callable[[Callable[..., Any]], Callable[..., None]] = lambda fn: fn,
    ) -> None:
        self._fds = fds
        for fd in fds:
            os.set_blocking(fd, False)
        self._receive = receive
        self._ended = ended
        self._on_readable = vital(self._readable)
        self._on_writable = vital(self._writable)
        self._on_look = vital(self._look_for_end)
        self._on_flush = vital(self.flush)
        self._loop = gevent.get_hub().loop
        self.from_threads = FromThreads(self._loop)
        self._read: Any = self._loop.io(fds[0], 1)
        self._write: Any = self._loop.io(fds[1], 2)
        self._look: Any = self._loop.timer(_LOOK_SECONDS, _LOOK_SECONDS)
        self._poll = get_original("select", "poll")()
        self._poll.register(fds[0], getattr(select, "POLLRDHUP", 0))  # POLLHUP is always reported
        self._out: list[bytes] = []
        self._stuck = b""
        self._flushing = False
        self._paused = False
        self._hung_up = False
        self._drained = Event()
        self._drained.set()
        self.closed = False
        self.urgent: bytes | None = None

    def start(self) -> None:
        """Begin to read."""
        self._read.start(self._on_readable)

    def pause(self) -> None:
        """Stop reading until :meth:`resume`, or until smtpd has closed its end."""
        if not (self._hung_up or self.closed):
            self._paused = True
            self._read.stop()
            self._look.start(self._on_look)

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if not self.closed:
            self._look.stop()
        self._watch()

    def listens(self) -> bool:
        """Return whether it reads, or has a reason of its own not to."""
        if self.closed or (self._paused and self._look.active):
            return True
        return bool((self._write if self._stuck else self._read).active)

    def listen(self) -> None:
        """Read again, whatever has stopped that."""
        if self._stuck:
            self._write.start(self._on_writable)
        elif self._paused:
            self._look.start(self._on_look)
        else:
            self._watch()

    def send(self, data: bytes) -> None:
        """Queue whole lines; they leave with everything else of this turn of the loop.

        Never switches greenlets. For the hub's thread only.
        """
        if data and not self.closed:
            self._out.append(data)
            if self.urgent is not None:
                self._out.append(self.urgent)
                self.urgent = None
                self.flush()
            elif not self._flushing:
                self._flushing = True
                self._loop.run_callback(self._on_flush)

    def send_threadsafe(self, data: bytes) -> None:
        """Queue whole lines from another thread."""
        self.from_threads.call(self.send, data)

    def run_soon(self, fn: Callable[..., None], *args: Any) -> None:
        """Call a function in the loop, from any thread, until the channel is closed."""
        self.from_threads.call(fn, *args)

    def wait_room(self) -> None:
        """Wait while smtpd reads slower than we write. May switch greenlets."""
        if len(self._stuck) + sum(map(len, self._out)) > _HIGH_BYTES:
            self.flush()
            self._drained.wait()

    def flush(self) -> None:
        """Write what is queued, as far as smtpd takes it now. Never switches greenlets."""
        self._flushing = False
        if self._stuck or self.closed:
            return
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._put(data)

    def close(self) -> None:
        """Close the socket. What was not written is lost, since nobody reads it."""
        if not self.closed:
            self.closed = True
            self._read.close()
            self._write.close()
            self._look.close()
            self.from_threads.stop()
            for fd in set(self._fds):
                os.close(fd)
            self._out.clear()
            self._stuck = b""
            self._drained.set()

    def _look_for_end(self) -> None:
        """Read to the end of what smtpd has written once it has closed: no more will come."""
        if self._poll.poll(0):
            self._hung_up = True
            self.resume()

    def _put(self, data: bytes) -> None:
        try:
            sent = _write(self._fds[1], data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._gone()
            return
        if sent < len(data):
            # Reading on would only make more output: page faults made that ten times slower.
            self._stuck = data[sent:]
            self._drained.clear()
            self._read.stop()
            self._write.start(self._on_writable)

    def _writable(self) -> None:
        data, self._stuck = self._stuck, b""
        self._write.stop()
        self._put(data)
        if not self._stuck and not self.closed:
            self.flush()
        if not self._stuck and not self.closed:
            self._drained.set()
            self._watch()

    def _watch(self) -> None:
        if not (self._paused or self._stuck or self.closed):
            self._read.start(self._on_readable)

    def _readable(self) -> None:
        try:
            data = _read(self._fds[0], _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._flushing = True  # what it answers at once is written right after it
            try:
                self._receive(data)
            finally:
                self.flush()
        else:
            self._gone()

    def _gone(self) -> None:
        self.close()
        self._ended()
