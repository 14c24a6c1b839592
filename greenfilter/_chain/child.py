"""A program that speaks smtpd-filters(7), for which greenfilter plays smtpd.

It is started and fed as by smtpd, and each line of it is judged by the oracle of what smtpd would
do. Where smtpd would end, only the program does; it is started again, with a delay that grows.
"""

from __future__ import annotations

import gevent

from .._process.log import logger
from .._smtpd.oracle import Oracle, hex_ids
from ..errors import UsageError
from ..protocol import NEWEST
from ..protocol._catalogue import TOKEN_FIRST_BEFORE
from ..protocol._fields import version_of
from .child_session import ChildSession
from .life import Life, ProgramError

# smtpd waits for ever for a filter to register; a start that fails should be seen to.
_HANDSHAKE_SECONDS = 30.0
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0


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
        self._told_late: set[bytes] = set()

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
        if self.oracle.ready and self.oracle.phases != life.oracle.phases:
            life.kill()  # what is asked was told to smtpd at its start
            raise UsageError(f"{self.name}: it has not registered the same phases as before")
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
        """Return what is known of a session, which begins with this if it is new.

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
        """Drop a session that is over."""
        self._sessions.pop(sid, None)

    def report(self, line: bytes, subsystem: str, event: str) -> None:
        """Hand on a report as often as it was registered. Never switches."""
        for _ in range(self.oracle.reports[subsystem, event]):
            self.send(line)

    def new_token(self) -> bytes:
        """Make a token for one request; unlike smtpd's, it tells a late answer from a right one."""
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
            ids = words[1:3]
            sid, token = ids[::-1] if self.version < TOKEN_FIRST_BEFORE else ids
            session = self._sessions.get(sid)
            if session is not None:
                session.judge(line, token)
                return
            plain = [word.encode() for word in hex_ids(ids[0], ids[1], line)]
            if plain != ids:  # smtpd reads them as numbers
                self.judge(b"|".join([words[0], *plain, words[3]]))
                return
            if token not in self._sessions:  # else it swaps the two, which nobody forgives
                return  # smtpd drops what comes for a session that is over
        elif line.startswith(b"register|"):
            self._register_late(line)
            return
        self.oracle.receive(line)

    def _register_late(self, line: bytes) -> None:
        Oracle().receive(line)  # raises where smtpd would not take it
        if line not in self._told_late:
            self._told_late.add(line)
            text = line.decode("utf-8", "backslashreplace")
            logger.warning("%s: %s comes after its register|ready, too late", self.name, text)

    def lost(self, life: Life, why: str) -> None:
        """Tell whoever waits that the process has ended, and start another one."""
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
