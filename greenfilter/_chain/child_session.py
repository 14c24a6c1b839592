"""One session, and one message, of a program that speaks smtpd-filters(7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import gevent.event

from .._mail.spool import Spool
from .._smtpd.oracle import Answer, DataLine, EndOfData, Oracle, OracleError, SmtpdWouldDie, hex_ids
from ..errors import GreenfilterError
from ..protocol import Decision
from ..protocol._catalogue import ENDS_TRANSACTION, STATE_OF_SESSION, STATE_OF_TRANSACTION
from ..protocol._stuffing import stuff_line, unstuff_line
from .life import ProgramError

# Reports kept of one transaction, for the program that is started when this one dies: two for each
# recipient, of which smtpd takes 1,000 by default.
_MAX_HISTORY = 4000


class Running(Protocol):
    """The program, whatever process it is now.

    Attributes:
        name: for errors.
        version: protocol version of what is written to it.
        max_message_bytes: most that it may write for one message.
    """

    name: str
    version: tuple[int, int]
    max_message_bytes: int

    def check(self) -> None:
        """Raise ProgramError unless it runs."""

    def new_token(self) -> bytes:
        """Make a token that no other request has."""

    def send(self, line: bytes) -> None:
        """Queue a line. Never switches greenlets."""

    def wait_room(self) -> None:
        """Wait while the program reads slower than it is written to. May switch greenlets."""


class ChildSession:
    """One session, as the program is told of it.

    Args:
        child: the program.
        sid: smtpd's id.
    """

    def __init__(self, child: Running, sid: bytes) -> None:
        self._child = child
        self._sid = sid
        self._oracle = self._new_oracle()
        self._token = b""  # of what is asked now
        self._late: set[bytes] = set()  # of what was given up
        self._waiter: gevent.event.AsyncResult[Answer] | None = None
        self._message: ChildMessage | None = None
        self._facts: dict[bytes, bytes] = {}
        self._open: list[bytes] = []
        self._is_cut = False  # there were more reports of the transaction than are kept
        self._is_lost = False  # a program runs that was told only those

    def keep(self, line: bytes, event: bytes) -> None:
        """Keep a report for a program that is started later."""
        if event in STATE_OF_SESSION:
            self._facts[event] = line
        elif event in ENDS_TRANSACTION:
            self._open = []
            self._is_cut = self._is_lost = False
        elif event in STATE_OF_TRANSACTION:
            if len(self._open) < _MAX_HISTORY:
                self._open.append(line)
            else:
                self._is_cut = True

    def history(self) -> list[bytes]:
        """Return the reports that lead to the present state, and forget what an ended one owes."""
        self._oracle = self._new_oracle()
        self._late.clear()
        self._is_lost = self._is_cut
        return [*self._facts.values(), *self._open]

    def ask(self, line: bytes, body: int, phase: str) -> Decision:
        """Ask the program to answer a request. Switches greenlets.

        Args:
            line: the request.
            body: where its parameter begins.
            phase: as on the wire.

        Raises:
            ProgramError: it does not run, dies meanwhile, or answers what the client would be
                cut for.
        """
        self._check()
        self._token = token = self._child.new_token()
        self._oracle.ask(self._sid.decode(), phase, token.decode())
        waiter = self._waiter = gevent.event.AsyncResult()
        self._child.send(line[: body - 17] + token + b"|" + line[body:])
        try:
            answer: Answer = waiter.get()  # type: ignore[assignment]
        except OracleError as error:
            raise ProgramError(str(error)) from None
        except BaseException:
            self._late.add(token)
            raise
        finally:
            self._waiter = None
        return Decision(answer.kind, answer.parameter.decode("utf-8", "surrogateescape"))

    def begin_message(self, line: bytes) -> ChildMessage:
        """Begin a message.

        Args:
            line: its first request, of which the fields before the token are used.

        Raises:
            ProgramError: the program does not run.
        """
        self._check()
        self._token = token = self._child.new_token()
        head = b"|".join([*line.split(b"|", 6)[:6], token, b""])
        self._message = ChildMessage(self._child, self, head)
        return self._message

    def note_data(self, line: bytes) -> None:
        """Note that a line of the message is written."""
        self._oracle.data_line(self._sid.decode(), self._token.decode(), line)

    def end_message(self, message: ChildMessage) -> None:
        """End the message; what still comes of it is dropped."""
        if self._message is message:
            self._message = None
            if not message.ended:
                self._late.add(self._token)

    def judge(self, line: bytes, token: bytes) -> None:
        """Take a line that the program has written for this session.

        Raises:
            SmtpdWouldDie: see there.
        """
        if token != self._token:
            token = hex_ids(token, token, line)[0].encode()
        if token in self._late:
            if line.startswith(b"filter-result") or line.endswith(b"|" + token + b"|."):
                self._late.discard(token)
            return
        try:
            effect = self._oracle.receive(line)
        except SmtpdWouldDie:
            raise
        except OracleError as error:  # smtpd would leave this session waiting, or cut its client
            self.fail(error)
            return
        if isinstance(effect, Answer) and self._waiter is not None:
            self._waiter.set(effect)
        elif self._message is not None and isinstance(effect, DataLine):
            # All of it: what smtpd would cut is refused, where it is written to smtpd.
            self._message.take(line.split(b"|", 3)[3])
        elif self._message is not None and isinstance(effect, EndOfData):
            self._message.finish()

    def fail(self, error: GreenfilterError) -> None:
        """Tell whoever waits for the program that it does not answer."""
        if self._waiter is not None:
            self._waiter.set_exception(error)
        if self._message is not None:
            self._message.fail(error)

    def _check(self) -> None:
        """Raise ProgramError unless the program runs, and knows the transaction."""
        self._child.check()
        if self._is_lost:
            raise ProgramError(f"{self._child.name} does not know all of a long transaction")

    def _new_oracle(self) -> Oracle:
        oracle = Oracle(self._child.version, ready=True)
        oracle.begin(self._sid.decode())
        return oracle


class ChildMessage:
    """One message on its way through the program."""

    def __init__(self, child: Running, session: ChildSession, head: bytes) -> None:
        self.ended = False
        self._child = child
        self._session = session
        self._head = head
        # What the program has written, as it may be faster than who reads it.
        self._spool = Spool(max_bytes=child.max_message_bytes)
        self._position = 0
        self._more = gevent.event.Event()
        self._error: GreenfilterError | None = None
        self._is_asked = False  # for its end
        self._is_lost = False  # there was no room for what it wrote

    def send(self, line: bytes) -> None:
        """Send a line. May switch greenlets.

        Raises:
            ProgramError: the program has died.
        """
        if self._error is not None:
            raise self._error
        self._write(stuff_line(line))
        self._child.wait_room()

    def end(self) -> None:
        """Send the final dot. Never switches."""
        self._is_asked = True
        self._write(b".")

    def output(self) -> Iterator[bytes]:
        """Yield the lines that have come by now.

        Raises:
            ProgramError: there was no room for them.
        """
        if self._is_lost and self._error is not None:
            raise self._error
        while self._position < self._spool.size:
            lines, self._position = self._spool.read_lines(self._position)
            for line in lines:
                yield unstuff_line(line)

    def wait(self) -> None:
        """Wait for more of them. Switches greenlets.

        Raises:
            ProgramError: the program has died.
        """
        self._more.clear()
        if self._error is None and not self.ended and self._position >= self._spool.size:
            self._more.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End it, wherever it is. The program gets the end that it waits for. Never switches."""
        if not self._is_asked and self._error is None:
            self.end()
        self._session.end_message(self)
        self._spool.close()

    def take(self, line: bytes) -> None:
        """Take a line of the program's."""
        if self._is_lost:
            return
        try:
            self._spool.append([line])
        except GreenfilterError as error:
            self._is_lost = True
            self.fail(ProgramError(f"{self._child.name}: what it wrote is lost: {error}"))
        self._more.set()

    def finish(self) -> None:
        """Note that the program has written the final dot."""
        self.ended = True
        self._more.set()

    def fail(self, error: GreenfilterError) -> None:
        """Note that no more will come."""
        self._error = error if isinstance(error, ProgramError) else ProgramError(str(error))
        self._more.set()

    def _write(self, line: bytes) -> None:
        self._session.note_data(line)
        self._child.send(self._head + line)
