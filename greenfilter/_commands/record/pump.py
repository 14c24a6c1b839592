"""Between smtpd and a filter: bytes pass both ways, and a copy goes to the recording."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..._process import log, stdio
from ...errors import UsageError
from .writer import Writer

_READ_BYTES = 65_536
_SWITCH_SECONDS = 1e-4
_IN, _OUT = select.POLLIN, select.POLLOUT
_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

Copy = Callable[[bytes], None]


class _Way:
    """One direction. Reads nothing while something waits to be written.

    Args:
        source, sink: file descriptors, not blocking.
        end: is called once when the source has ended and all is written.
        copy: is given each piece.
    """

    def __init__(self, source: int, sink: int, end: Callable[[], None], copy: Copy) -> None:
        self.source = source
        self.sink = sink
        self.waiting = b""
        self.reading = True
        self._end = end
        self._copy = copy

    def state(self) -> tuple[bool, bool]:
        """Return whether it has to write, and whether it reads at all."""
        return bool(self.waiting), self.reading

    def move(self) -> bool:
        """Pass on what is there, as far as it goes; return whether something moved."""
        if self.waiting:
            return self._put(self.waiting)
        if not self.reading:
            return False
        try:
            data = os.read(self.source, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.reading = False
            self._end()
            return False
        self._put(data)
        self._copy(data)
        return True

    def _put(self, data: bytes) -> bool:
        try:
            sent = os.write(self.sink, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(data)  # nobody reads that any more
        self.waiting = data[sent:]
        return sent > 0


def record(command: Sequence[str], writer: Writer) -> NoReturn:
    """Run a filter, pass on what smtpd and it say, and end as it does.

    The filter gets what smtpd gives a filter: one socket as fds 0 and 1. Signals are passed on
    to it.

    Args:
        command: the filter.
        writer: gets a copy of all.

    Raises:
        UsageError: the filter cannot be started.
        SystemExit: the filter ended, with its status.
    """
    blocking = os.get_blocking(0)
    read, write = stdio.take()
    ours, theirs = socket.socketpair()
    theirs.setblocking(blocking)
    try:
        child = subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno())
    except OSError as error:
        raise UsageError(f"{command[0]}: {error.strerror}", 127) from error
    theirs.close()
    wake = _wake_by_signals(child)
    filter_fd = ours.fileno()
    for fd in (read, write, filter_fd):
        os.set_blocking(fd, False)
    inward = _Way(read, filter_fd, lambda: _shut(filter_fd), lambda data: writer.put(b"<", data))
    outward = _Way(filter_fd, write, lambda: _shut(write), lambda data: writer.put(b">", data))
    # The writer's thread gives way to this one soon, not after 5 ms as usual.
    sys.setswitchinterval(_SWITCH_SECONDS)
    _pass_on(child, inward, outward, wake)
    writer.close()
    _end_like(child.returncode)


def _pass_on(child: subprocess.Popen[bytes], inward: _Way, outward: _Way, wake: int) -> None:
    """Pass on all that the filter writes, until it has ended."""
    polls: dict[tuple[bool, ...], select.poll] = {}
    while child.poll() is None:
        ready: list[int] = []
        while wake not in ready:
            state = (*inward.state(), *outward.state())
            if state not in polls:
                polls[state] = _poll(inward, outward, wake)
            ready = [fd for fd, _ in polls[state].poll()]
            for way in (inward, outward):
                if way.source in ready or way.sink in ready:
                    way.move()
        os.read(wake, _READ_BYTES)
    # A child of the filter may hold the socket open: what is in it now is all.
    while outward.move() or outward.waiting:
        if outward.waiting:
            poll = select.poll()
            poll.register(outward.sink, _OUT)
            poll.poll()


def _poll(inward: _Way, outward: _Way, wake: int) -> select.poll:
    """Return what to wait for, in the state that the two are in."""
    masks: dict[int, int] = {wake: _IN}
    for way in (inward, outward):
        if way.waiting:
            masks[way.sink] = masks.get(way.sink, 0) | _OUT
        elif way.reading:
            masks[way.source] = masks.get(way.source, 0) | _IN
    poll = select.poll()
    for fd, mask in masks.items():
        poll.register(fd, mask)
    return poll


def _shut(fd: int) -> None:
    """Send the other end the end of file; the other direction of a socket goes on."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        os.close(fd)
        return
    with socket.socket(fileno=os.dup(fd)) as sock, contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


def _wake_by_signals(child: subprocess.Popen[bytes]) -> int:
    """Pass signals on to the filter; a byte comes from the returned fd when it has ended."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in _FORWARDED:
        signal.signal(number, lambda number, frame: child.send_signal(number))
    return ours.detach()


def _end_like(status: int) -> NoReturn:
    if status < 0:
        log.logger.error("the filter was ended by signal %d", -status)
        # The same end for the one who waits, but only one core file, the filter's.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
