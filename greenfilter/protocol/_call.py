"""The parser's output: calls, and the lines of messages."""

from __future__ import annotations

from typing import Any

from ._catalogue import PHASES, TOKEN_FIRST_BEFORE, Event, Phase
from ._decision import Decision
from ._fields import parse_parameter, parse_report, version_of
from ._session import Session

_COMMIT = PHASES["commit"]
# Lines that come in pieces while their session is busy are put together up to this many.
_MANY_LINES = 1000


class Call:
    """One request or report of smtpd.

    Attributes:
        session: the session that it belongs to.
        hook: the phase asked for, or the event told.
        line: as smtpd wrote it, without its LF.
        body: where the parameter of a request begins in it; 0 in a report.
        owed: where the guard keeps it while it waits for an answer.
    """

    __slots__ = ("body", "hook", "line", "owed", "session")

    def __init__(self, session: Session, hook: Phase | Event, line: bytes, body: int) -> None:
        self.session = session
        self.hook = hook
        self.line = line
        self.body = body
        self.owed: dict[Any, float] | None = None

    @property
    def token(self) -> bytes | None:
        """To be echoed in the answer; None in a report."""
        return self.line[self.body - 17 : self.body - 1] if self.body else None

    @property
    def committed(self) -> Stream | None:
        """The message that this is the commit of; None for all else, and where none has come."""
        return self.session.last_stream if self.hook is _COMMIT else None

    @property
    def version(self) -> tuple[int, int]:
        """Version of the protocol that the line is written in."""
        return version_of(self.line.split(b"|", 2)[1])

    @property
    def time(self) -> float:
        """When smtpd wrote the line: seconds since the epoch. Steps back now and then."""
        try:
            return float(self.line.split(b"|", 3)[2])
        except (IndexError, ValueError):
            return 0.0

    def values(self) -> list[Any]:
        """Return the handler's arguments after ctx.

        Raises:
            RemoteProtocolError: a field of a report is missing, or is not what its kind says.
        """
        if isinstance(self.hook, Phase):
            return parse_parameter(self.hook, self.line[self.body :])
        parts = self.line.split(b"|", 6)
        return parse_report(self.hook, self.version, parts[6] if len(parts) > 6 else None)


class Stream:
    """The lines of one message, from its first data-line to the lone dot.

    Attributes:
        session: the session that it belongs to.
        head: what every line of the answer begins with.
        old: the server cuts lines at 2 KiB (before protocol 0.7).
        open: smtpd still waits for lines.
        damaged: a line could not pass whole, so commit must refuse the message.
        line: the first request line, for version and time.
        outcome: how commit will be answered, whatever else is said; None leaves it open.
        consumer: what becomes of the lines; the runtime and the supervisor keep their own here.
    """

    __slots__ = ("consumer", "damaged", "head", "line", "old", "open", "outcome", "session")

    def __init__(self, session: Session, token: bytes, line: bytes) -> None:
        version = version_of(line.split(b"|", 2)[1])
        token_first = version < TOKEN_FIRST_BEFORE
        ids = (token, session.sid) if token_first else (session.sid, token)
        self.session = session
        self.head = b"filter-dataline|%b|%b|" % ids
        self.old = version < (0, 7)
        self.open = True
        self.damaged = False
        self.line = line
        self.outcome: Decision | None = None
        self.consumer: Any = None


class Chunk:
    """Consecutive data lines of one message.

    Attributes:
        stream: the message that they belong to.
        lines: as on the wire: dot-stuffed, without their LF, and without the final dot.
        ended: the final dot came after them.
        spilled: where the lines are while they wait on disk; ``lines`` is empty then.
    """

    __slots__ = ("ended", "lines", "spilled", "stream")

    def __init__(self, stream: Stream, lines: list[bytes], ended: bool) -> None:
        self.stream = stream
        self.lines = lines
        self.ended = ended
        self.spilled: Any = None

    def takes(self, lines: list[bytes]) -> bool:
        """Add lines that follow if these wait in memory and are few; return whether it did."""
        if self.spilled is not None or len(self.lines) + len(lines) > _MANY_LINES:
            return False
        self.lines += lines
        return True
