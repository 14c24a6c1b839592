"""One process of a program that speaks smtpd-filters(7), with smtpd's file descriptors."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from typing import Any, Protocol

import gevent
import gevent.event
import gevent.socket

from .._process.log import logger
from .._smtpd.oracle import Oracle, OracleError, Ready
from ..errors import GreenfilterError

_READ_BYTES = 65_536
_MAX_LOG_BYTES = 4096  # a longer line of its log is several
_MAX_LINE_BYTES = 64_000
# It is given this long to end after its end of file.
_END_SECONDS = 1.0
_POLL_SECONDS = 0.01
# How often it is seen whether it has ended; mostly the end of its socket tells first.
_LOOK_SECONDS = 0.5
# A life this long is not a sign that the program cannot run.
_LONG_LIFE = 60.0
# A message waits above this; a program that does not even read reports is ended.
_HIGH_BYTES, _MOST_BYTES = 1 << 20, 64 << 20


class ProgramError(GreenfilterError):
    """A program that is a member of a chain could not answer: it died, or wrote nonsense."""


class Owner(Protocol):
    """Who has started the process.

    Attributes:
        name: for logs.
    """

    name: str

    def judge(self, line: bytes) -> None:
        """Take a line that it has written after its registration."""

    def lost(self, life: Life, why: str) -> None:
        """Take note that it has ended, or was ended for what it wrote."""


class Life:
    """One process.

    Args:
        owner: who has started it.

    Attributes:
        ready: set when its registration has ended.
        oracle: what it has registered.
        ended: why it has ended by itself, or had to be ended; "" before.
    """

    def __init__(self, owner: Owner) -> None:
        self.ready: gevent.event.AsyncResult[None] = gevent.event.AsyncResult()
        self.oracle = Oracle()
        self._owner = owner
        self._process: subprocess.Popen[bytes] | None = None
        self._out = bytearray()
        self._changed = gevent.event.Event()
        self._room = gevent.event.Event()
        self._room.set()
        self._began = 0.0
        self._is_over = False
        self.ended = ""
        self._greenlets: list[Any] = []

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None, "begin() comes first"
        return self._process.pid

    def begin(self, command: str, config: bytes) -> None:
        """Start the process with smtpd's file descriptors: one socket as 0 and 1, another as 2."""
        self._began = gevent.get_hub().loop.now()
        self._sock, theirs = gevent.socket.socketpair()
        log, their_log = gevent.socket.socketpair()
        with theirs, their_log:
            for end in (theirs, their_log):  # as smtpd leaves them: programs read and write simply
                os.set_blocking(end.fileno(), True)
            try:
                # In the worker's group of processes, with which it ends whatever it does.
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", f"exec {command}"],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=their_log.fileno(),
                )
            except OSError:
                self._sock.close()
                log.close()
                raise
        self._greenlets = [
            gevent.spawn(self._read),
            gevent.spawn(self._write),
            gevent.spawn(self._read_log, log),
            gevent.spawn(self._look_for_end),
        ]
        self._out += config
        self._changed.set()

    def was_long(self) -> bool:
        """Return whether it has lived so long that its end is not a sign that it cannot run."""
        return bool(gevent.get_hub().loop.now() - self._began > _LONG_LIFE)

    def send(self, line: bytes) -> None:
        """Write a line. Never switches."""
        self._out += line + b"\n"
        if len(self._out) > _HIGH_BYTES:
            self._room.clear()
            if len(self._out) > _MOST_BYTES:
                self._fail(f"it does not read: {len(self._out)} bytes wait for it")
        self._changed.set()

    def wait_room(self) -> None:
        """Wait while there is too much to write. May switch greenlets."""
        self._room.wait()

    def end(self) -> None:
        """End of file; and if that does not end it, a signal. Switches greenlets."""
        self._is_over = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._wait()
        self.kill()

    def kill(self) -> None:
        """Kill the process. Never switches."""
        self._is_over = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            gevent.spawn(self._reap)  # or the process table keeps it
        self._out.clear()
        self._room.set()
        self._changed.set()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _look_for_end(self) -> None:
        """End it also where a child of it keeps its socket open: smtpd would have ended."""
        assert self._process is not None, "begin() comes first"
        while not self._is_over and self._process.poll() is None:
            gevent.sleep(_LOOK_SECONDS)
        gevent.sleep(_LOOK_SECONDS)  # for what it has written at last
        self._fail(self._how_it_ended())

    def _write(self) -> None:
        while not self._is_over:
            self._changed.wait()
            self._changed.clear()
            data, self._out = self._out, bytearray()
            try:
                self._sock.sendall(data)
            except OSError:
                return  # the reader sees the same end, and says what it means
            if len(self._out) <= _HIGH_BYTES:
                self._room.set()

    def _read(self) -> None:
        with self._sock:
            self._read_lines()

    def _read_lines(self) -> None:
        rest = b""
        while chunk := self._receive():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not self._judge(line):
                    return
            if len(rest) > _MAX_LINE_BYTES:
                self._fail(f"a line without an end fills smtpd's buffer: {rest[:80]!r}")
                return
        self._fail(self._how_it_ended())

    def _receive(self) -> bytes:
        try:
            return bytes(self._sock.recv(_READ_BYTES))
        except OSError:
            return b""

    def _judge(self, line: bytes) -> bool:
        try:
            if self.ready.ready():
                self._owner.judge(line)
            elif isinstance(self.oracle.receive(line), Ready):
                self.ready.set(None)
        except OracleError as error:
            self._fail(f"smtpd would have ended: {error}")
            return False
        return True

    def _how_it_ended(self) -> str:
        status = self._wait()
        if status is None:
            return "it closed its socket"
        return f"it was ended by signal {-status}" if status < 0 else f"it ended, status {status}"

    def _wait(self) -> int | None:
        """Wait a moment for the end of the process; return its status."""
        assert self._process is not None, "begin() comes first"
        for _ in range(int(_END_SECONDS / _POLL_SECONDS)):
            if self._process.poll() is not None:
                break
            gevent.sleep(_POLL_SECONDS)
        return self._process.returncode

    def _reap(self) -> None:
        assert self._process is not None, "begin() comes first"
        while self._process.poll() is None:
            gevent.sleep(_POLL_SECONDS)

    def _fail(self, why: str) -> None:
        if self._is_over:
            return
        self.ended = why
        self.kill()
        if not self.ready.ready():
            self.ready.set_exception(ProgramError(why))
        self._owner.lost(self, why)

    def _read_log(self, log: Any) -> None:
        with log, log.makefile("rb") as lines:
            while line := lines.readline(_MAX_LOG_BYTES):
                text = line.rstrip(b"\n").decode("utf-8", "backslashreplace")
                logger.warning("%s: %s", self._owner.name, text)
