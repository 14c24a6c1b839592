"""smtpd's side of the socket to one filter.

Everything above it (sessions, a development server, replayed recordings, load) asks and reports
through :class:`FilterLink`, and each line of the filter passes the oracle here.
"""

from __future__ import annotations

import random
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NoReturn

import gevent
import gevent.event
import gevent.socket

from .oracle import (
    Answer,
    DataLine,
    EndOfData,
    Oracle,
    OracleError,
    Ready,
    SmtpdWouldDie,
    SmtpdWouldHang,
)
from .wire import Version, Wire

if TYPE_CHECKING:
    from .target import Target

_READ_BYTES = 65_536
Observer = Callable[[str, bytes], None]


class FilterLink:
    """Speaks the filter protocol as smtpd does.

    Args:
        target: the filter.
        version: protocol version.
        timeout: seconds to wait for each answer.
        read_bytes: how much is read of the filter at once; little makes a slow reader.
        observer: called with ``("<", line)`` for what smtpd writes and ``(">", line)`` for what
            the filter writes, as soon as it does.
        on_error: called with what the oracle finds, as soon as it does; it may not switch.

    Attributes:
        errors: what the oracle found, in order.
        oracle: see there for what the filter registered.
    """

    def __init__(
        self,
        target: Target,
        version: Version = (0, 7),
        timeout: float = 10.0,
        observer: Observer | None = None,
        read_bytes: int = _READ_BYTES,
        on_error: Callable[[OracleError], None] | None = None,
    ) -> None:
        self.target = target
        self.timeout = timeout
        self.oracle = Oracle(version)
        self.errors: list[OracleError] = []
        self._wire = Wire(version)
        self._observer = observer
        self._on_error = on_error
        self._read_bytes = read_bytes
        self._reading = gevent.event.Event()
        self._reading.set()
        # smtpd makes one token per filter and phase, for its whole life.
        self._tokens: defaultdict[str, str] = defaultdict(new_id)
        self._waiting: dict[str, gevent.event.AsyncResult[Answer | None]] = {}
        self._data: dict[str, list[bytes]] = {}
        self._ready: gevent.event.AsyncResult[None] = gevent.event.AsyncResult()
        self._out = bytearray()
        self._out_changed = gevent.event.Event()
        self._out_empty = gevent.event.Event()
        self._out_empty.set()
        self._dead: OracleError | None = None
        self._closing = False
        self._raised: set[int] = set()
        self._owner = gevent.getcurrent()

    def open(self, config: Iterable[bytes]) -> None:
        """Start the filter and go through the handshake. Switches greenlets.

        Args:
            config: the config lines, the last one ``config|ready``.

        Raises:
            OracleError: the registration is not legal, or does not end.
            OSError: the command cannot be run.
        """
        self._sock, theirs = gevent.socket.socketpair()
        try:
            self.target.start(socket.socket(fileno=theirs.detach()))
        except BaseException:
            self._sock.close()
            raise
        self._reader = gevent.spawn(self._read)
        self._writer = gevent.spawn(self._write)
        for line in config:
            self._send(line)
        self._wait(self._ready, "register|ready", None)

    def report(self, subsystem: str, event: str, session_id: str, *fields: str) -> None:
        """Send a report as often as it was registered. Never switches."""
        for _ in range(self.oracle.reports[subsystem, event]):
            now = time.time()
            self._send(self._wire.report(now, subsystem, event, session_id, fields))

    def begin(self, session_id: str) -> None:
        """Note that a client connected. Never switches."""
        self.check()
        self.oracle.begin(session_id)

    def end(self, session_id: str) -> None:
        """Note that a session is over. Never switches."""
        self._data.pop(session_id, None)
        self.oracle.end(session_id)

    def ask(self, session_id: str, phase: str, *fields: str) -> Answer:
        """Send a request and wait for its answer. Switches greenlets.

        Returns:
            The answer; ``proceed`` at once when the phase was not registered.

        Raises:
            OracleError: instead of an answer.
        """
        self.check()
        if phase not in self.oracle.phases:
            self.oracle.skip(session_id, phase)
            return Answer(session_id, phase, "proceed")
        token = self._tokens[phase]
        waiter = self._waiting[session_id] = gevent.event.AsyncResult()
        self.oracle.ask(session_id, phase, token)
        self._send(self._wire.request(time.time(), phase, session_id, token, fields or ("",)))
        answer = self._wait(waiter, f"answer to {phase}", session_id)
        assert answer is not None
        return answer

    def send_data(self, session_id: str, lines: Iterable[bytes]) -> None:
        """Send lines of a message, dot-stuffed, without the final dot. Never switches."""
        self.check()
        data = self._data.setdefault(session_id, [])
        if "data-line" not in self.oracle.phases:
            self.oracle.skip(session_id, "data-line")
            data += lines
            return
        for line in lines:
            self._send_data_line(session_id, line)

    def end_data(self, session_id: str) -> list[bytes]:
        """Send the final dot and wait until the filter has written its own. Switches greenlets.

        Returns:
            The lines of the message as the filter wants them, dot-stuffed.
        """
        self.check()
        if "data-line" in self.oracle.phases:
            waiter = self._waiting[session_id] = gevent.event.AsyncResult()
            self._send_data_line(session_id, b".")
            self._wait(waiter, "end of the message", session_id)
        return self._data.pop(session_id, [])

    def send_raw(self, data: bytes) -> None:
        """Write bytes to the filter as they are. Never switches."""
        self.check()
        self._out += data
        self._out_empty.clear()
        self._out_changed.set()

    def flush(self) -> None:
        """Wait until all is written that was sent. Switches greenlets."""
        self.check()
        if not self._out_empty.wait(self.timeout):
            self._note(SmtpdWouldHang(f"the filter did not read for {self.timeout} s"))
            self._raise(self.errors[-1])
        self.check()

    def pause(self) -> None:
        """Stop reading from the filter until :meth:`resume`. Never switches."""
        self._reading.clear()

    def resume(self) -> None:
        """Read again. Never switches."""
        self._reading.set()

    def close(self) -> list[OracleError]:
        """End of file for the filter, then wait for its end. Switches greenlets.

        Returns:
            The errors that were not raised in the greenlet that made this object.
        """
        self.resume()
        if not self._dead:
            self._out_empty.wait(self.timeout)
        self._closing = True
        self._shutdown(socket.SHUT_WR)
        patience = min(self.timeout, 1.0) if self._dead else self.timeout
        trouble = self.target.wait(patience)
        if self.target.fault is not None and not self._dead:
            self._fail(self.target.fault)
        if trouble is None:
            self.target.kill()
            trouble = f"it still ran {patience} s after end of file"
        # What the filter has written is still read, also where a child of it holds the socket.
        self._shutdown(socket.SHUT_RD)
        self._reader.join()
        self._writer.kill()
        self._sock.close()
        if trouble and not self._dead:
            self._note(OracleError(f"the filter did not end well: {trouble}{self._tail()}"))
        for waiter in self._waiting.values():
            waiter.set_exception(ConnectionError("smtpd was stopped"))
        return [error for error in self.errors if id(error) not in self._raised]

    def _send(self, line: bytes) -> None:
        if self._observer:
            self._observer("<", line)
        self.send_raw(line + b"\n")

    def _send_data_line(self, session_id: str, line: bytes) -> None:
        token = self._tokens["data-line"]
        self.oracle.data_line(session_id, token, line)
        self._send(self._wire.data_line(time.time(), session_id, token, line))

    def _write(self) -> None:
        while True:
            self._out_changed.wait()
            self._out_changed.clear()
            data, self._out = self._out, bytearray()
            try:
                self._sock.sendall(data)
            except OSError:
                # The reader sees the same end, and says what it means.
                self._out.clear()
            if not self._out:
                self._out_empty.set()

    def _read(self) -> None:
        rest = b""
        while chunk := self._receive():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._judge(line)
            if len(rest) > _READ_BYTES:
                self._fail(SmtpdWouldHang("smtpd's input buffer is full, without a newline", rest))
                rest = b""
        if not (self._closing or self._dead):
            trouble = self.target.wait(1.0)
            if trouble is None:
                self._fail(SmtpdWouldHang("the filter closed its socket and runs on"))
            else:
                ended = f"the filter ended: {trouble}" if trouble else "the filter ended"
                self._fail(SmtpdWouldDie(ended + self._tail()))

    def _receive(self) -> bytes:
        self._reading.wait()
        try:
            return self._sock.recv(self._read_bytes)
        except OSError:
            return b""

    def _judge(self, line: bytes) -> None:
        if self._dead:
            return
        if self._observer:
            self._observer(">", line)
        try:
            effect = self.oracle.receive(line)
        except OracleError as error:
            self._fail(error)
            return
        if isinstance(effect, DataLine):
            self._data.setdefault(effect.session_id, []).append(effect.line)
        elif isinstance(effect, Answer):
            self._wake(effect.session_id, effect)
        elif isinstance(effect, EndOfData):
            self._wake(effect.session_id, None)
        elif isinstance(effect, Ready):
            self._ready.set(None)

    def _wake(self, session_id: str, answer: Answer | None) -> None:
        waiter = self._waiting.pop(session_id, None)
        if waiter:
            waiter.set(answer)

    def _note(self, error: OracleError) -> None:
        self.errors.append(error)
        if self._on_error:
            self._on_error(error)

    def _fail(self, error: OracleError) -> None:
        self._note(error)
        session_id = error.session_id
        if isinstance(error, SmtpdWouldDie) or session_id is None:
            self._dead = error
            for waiter in self._waiting.values():
                waiter.set_exception(error)
            self._waiting.clear()
            self._ready.set_exception(error)
            self._shutdown(socket.SHUT_WR)
        elif session_id in self._waiting:
            self._waiting.pop(session_id).set_exception(error)

    def _wait(
        self,
        waiter: gevent.event.AsyncResult[Answer | None] | gevent.event.AsyncResult[None],
        what: str,
        session_id: str | None,
    ) -> Answer | None:
        try:
            answer = waiter.get(timeout=self.timeout)
            self._check_fault()
            return answer
        except OracleError as error:
            self._raise(error)
        except gevent.Timeout:
            reason = f"no {what} within {self.timeout} s{self._tail()}"
            self._note(SmtpdWouldHang(reason, session_id=session_id))
            self._raise(self.errors[-1])

    def check(self) -> None:
        """Raise what smtpd cannot go on after, if there is anything. Never switches.

        Raises:
            OracleError: see there.
        """
        self._check_fault()
        if self._dead:
            self._raise(self._dead)

    def _check_fault(self) -> None:
        fault = self.target.fault
        if fault is not None and fault is not self._dead:
            self._fail(fault)
            self._raise(fault)

    def _raise(self, error: OracleError) -> NoReturn:
        if gevent.getcurrent() is self._owner:
            self._raised.add(id(error))
        raise error

    def _shutdown(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError:
            return  # the other end is closed already

    def _tail(self) -> str:
        return "".join(f"\n  {line}" for line in self.target.log[-20:])


def new_id() -> str:
    """Make a session id or token: 16 hexadecimal digits, never all zero."""
    return f"{random.randrange(1, 1 << 64):016x}"
