"""A program that speaks smtpd-filters(7), for which greenfilter plays smtpd.

It is started and fed as by smtpd, and each line of it is judged by the oracle of what smtpd would
do. Where smtpd would end, only the program does; it is started again, with a delay that grows.
"""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import gevent.event

from .._mail.spool import Spool
from .._process.log import logger
from .._smtpd.oracle import Answer, DataLine, EndOfData, Oracle, OracleError, SmtpdWouldDie
from ..errors import GreenfilterError, UsageError
from ..protocol import NEWEST, Decision
from ..protocol._fields import version_of
from .life import Life, ProgramError

# smtpd waits for ever for a filter to register; a start that fails should be seen to.
_HANDSHAKE_SECONDS = 30.0
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
# Reports kept of one transaction, for the program that is started when this one dies.
_MAX_HISTORY = 1000
_OF_SESSION = (b"link-connect", b"link-greeting", b"link-identify", b"link-tls", b"link-auth")


class Child:
    """One program, and what follows it when it ends.

    Args:
        command: for the shell.
        name: for logs.
        config: what smtpd said of itself, as on the wire.
        max_message_bytes: most that it may write for one message.

    Attributes:
        oracle: what the program has registered.
        pid: of the process, or None while there is none.
        version: protocol version of what is written to it.
    """

    def __init__(self, command: str, name: str, config: bytes, max_message_bytes: int) -> None:
        self.name = name
        self.oracle = Oracle()
        self.version = NEWEST
        self.pid: int | None = None
        self._command = command
        self._config = config
        self.max_message_bytes = max_message_bytes
        self._sessions: dict[bytes, ChildSession] = {}
        self._tokens = 0
        self._spoken = b""
        self._life: Life | None = None
        self._starting: Life | None = None
        self._delay = 0.0  # seconds before the next start
        self._is_over = False

    def start(self) -> None:
        """Start it, and wait for its registration. Switches greenlets.

        Raises:
            UsageError: it cannot be run, or does not register as smtpd wants it.
        """
        life = self._starting = Life(self)
        try:
            life.begin(self._command, self._config)
            life.ready.get(timeout=_HANDSHAKE_SECONDS)
        except gevent.Timeout:
            life.kill()
            raise UsageError(
                f"{self.name}: no register|ready in {_HANDSHAKE_SECONDS:g} s"
            ) from None
        except ProgramError as error:
            raise UsageError(f"{self.name}: {error}") from None
        except OSError as error:
            raise UsageError(f"{self.name}: {error.strerror}: {self._command}") from error
        if self._is_over:
            life.kill()
            return
        if life.ended:  # right after it was ready
            raise UsageError(f"{self.name}: {life.ended}")
        self.oracle = life.oracle
        self._take(life)

    def stop(self) -> None:
        """End of file, a moment, and then the end. Switches greenlets."""
        self._is_over = True
        if self._life is not None:
            self._life.end()
        elif self._starting is not None:
            self._starting.kill()

    def session(self, sid: bytes, line: bytes) -> ChildSession:
        """Give what is known of a session, which begins with this if it is new.

        Args:
            sid: smtpd's id.
            line: what is about to be written; its version is the one that is spoken.
        """
        if line.split(b"|", 2)[1] != self._spoken:
            self._spoken = line.split(b"|", 2)[1]
            self.version = version_of(self._spoken)
        session = self._sessions.get(sid)
        if session is None:
            session = self._sessions[sid] = ChildSession(self, sid)
        return session

    def forget(self, sid: bytes) -> None:
        """A session is over."""
        self._sessions.pop(sid, None)

    def report(self, line: bytes, subsystem: str, event: str) -> None:
        """Hand on a report as often as it was registered. Never switches."""
        for _ in range(self.oracle.reports[subsystem, event]):
            self.send(line)

    def new_token(self) -> bytes:
        """Give a token for one request: unlike smtpd's, it tells a late answer from a right one."""
        self._tokens += 1
        return b"%016x" % self._tokens

    def send(self, line: bytes) -> None:
        """Write a line, if it runs. Never switches."""
        if self._life is not None:
            self._life.send(line)

    def check(self) -> None:
        """Raise ProgramError unless it runs."""
        if self._life is None:
            raise ProgramError(f"{self.name} does not run; it is started again")

    def wait_room(self) -> None:
        """Wait while it reads slower than we write. May switch greenlets."""
        if self._life is not None:
            self._life.wait_room()

    def judge(self, line: bytes) -> None:
        """Take a line that it has written after its registration.

        Raises:
            SmtpdWouldDie: see there.
        """
        words = line.split(b"|", 3)
        if len(words) == 4 and words[0] in (b"filter-result", b"filter-dataline"):
            sid, token = words[1:3] if self.version >= (0, 5) else words[2:0:-1]
            session = self._sessions.get(sid)
            if session is not None:
                session.judge(line, token)
                return
            if token not in self._sessions:  # else it swaps the two, which nobody forgives
                return  # smtpd drops what comes for a session that is over
        self.oracle.receive(line)

    def lost(self, life: Life, why: str) -> None:
        """It has ended. Whoever waits for it is told, and another one is started."""
        if life is not self._life:
            return
        self._life = None
        self.pid = None
        if self._is_over:
            return
        grown = 0.0 if life.was_long() else min(self._delay * 2, _LONGEST_DELAY)
        self._delay = max(grown, _FIRST_DELAY)
        logger.error("%s: %s; it is started again in %g s", self.name, why, self._delay)
        for session in list(self._sessions.values()):
            session.fail(ProgramError(f"{self.name}: {why}"))
        gevent.spawn(self._restart)

    def _restart(self) -> None:
        while not self._is_over:
            gevent.sleep(self._delay)
            try:
                self.start()
                logger.info("%s: it runs again", self.name)
                return
            except UsageError as error:
                self._delay = min(self._delay * 2, _LONGEST_DELAY)
                logger.error("cannot start again: %s; next try in %g s", error, self._delay)

    def _take(self, life: Life) -> None:
        self._life = life
        self.pid = life.pid
        for session in self._sessions.values():
            for line in session.history():
                words = line.split(b"|", 5)
                self.report(line, words[3].decode(), words[4].decode())


class ChildSession:
    """One session, as the program is told of it.

    Args:
        child: the program.
        sid: smtpd's id.
    """

    def __init__(self, child: Child, sid: bytes) -> None:
        self._child = child
        self._sid = sid
        self._oracle = self._new_oracle()
        self._token = b""  # of what is asked now
        self._late: set[bytes] = set()  # of what was given up
        self._waiter: gevent.event.AsyncResult[Answer] | None = None
        self._message: ChildMessage | None = None
        self._facts: dict[bytes, bytes] = {}
        self._open: list[bytes] = []

    def keep(self, line: bytes, event: bytes) -> None:
        """Keep a report for a program that is started later."""
        if event in _OF_SESSION:
            self._facts[event] = line
        elif event == b"tx-reset":
            self._open = []
        elif event.startswith(b"tx-") and len(self._open) < _MAX_HISTORY:
            self._open.append(line)

    def history(self) -> list[bytes]:
        """Give the reports that lead to the present state, and forget what an ended one owes."""
        self._oracle = self._new_oracle()
        self._late.clear()
        return [*self._facts.values(), *self._open]

    def ask(self, line: bytes, body: int, phase: str) -> Decision:
        """Have the program answer a request. Switches greenlets.

        Args:
            line: the request.
            body: where its parameter begins.
            phase: as on the wire.

        Raises:
            ProgramError: it does not run, dies meanwhile, or answers what the client would be
                cut for.
        """
        self._child.check()
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
        self._child.check()
        self._token = token = self._child.new_token()
        head = b"|".join([*line.split(b"|", 6)[:6], token, b""])
        self._message = ChildMessage(self._child, self, head)
        return self._message

    def note_data(self, line: bytes) -> None:
        """Note that a line of the message is written."""
        self._oracle.data_line(self._sid.decode(), self._token.decode(), line)

    def end_message(self, message: ChildMessage) -> None:
        """The message is over; what still comes of it is dropped."""
        if self._message is message:
            self._message = None
            if not message.ended:
                self._late.add(self._token)

    def judge(self, line: bytes, token: bytes) -> None:
        """Take a line that the program has written for this session.

        Raises:
            SmtpdWouldDie: see there.
        """
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
        """Have whoever waits for the program know that it does not answer."""
        if self._waiter is not None:
            self._waiter.set_exception(error)
        if self._message is not None:
            self._message.fail(error)

    def _new_oracle(self) -> Oracle:
        oracle = Oracle(self._child.version, ready=True)
        oracle.begin(self._sid.decode())
        return oracle


class ChildMessage:
    """One message on its way through the program."""

    def __init__(self, child: Child, session: ChildSession, head: bytes) -> None:
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
        self._write(b"." + line if line[:1] == b"." else line)
        self._child.wait_room()

    def end(self) -> None:
        """Send the final dot. Never switches."""
        self._is_asked = True
        self._write(b".")

    def output(self) -> Iterator[bytes]:
        """Give the lines that have come by now.

        Raises:
            ProgramError: there was no room for them.
        """
        if self._is_lost and self._error is not None:
            raise self._error
        while self._position < self._spool.size:
            lines, self._position = self._spool.read_lines(self._position)
            for line in lines:
                yield line[1:] if line[:1] == b"." else line

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
        """The program has written the final dot."""
        self.ended = True
        self._more.set()

    def fail(self, error: GreenfilterError) -> None:
        """No more will come."""
        self._error = error if isinstance(error, ProgramError) else ProgramError(str(error))
        self._more.set()

    def _write(self, line: bytes) -> None:
        self._session.note_data(line)
        self._child.send(self._head + line)
