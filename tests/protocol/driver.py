"""Feeds bytes to a Connection and answers what it asks, as a runtime would, without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from greenfilter.errors import DecisionError, RemoteProtocolError
from greenfilter.protocol import (
    PROCEED,
    Call,
    Chunk,
    Connection,
    Decision,
    Guard,
    Session,
    last_resort,
)

SID = b"097e63a58900ef3c"
TOKEN = b"f7eb83a2308afe87"
TIME = b"1795333857.855196"
_ENDS = ("tx-reset", "link-disconnect")


def request(
    phase: str, *fields: bytes, sid: bytes = SID, version: str = "0.7", token: bytes = TOKEN
) -> bytes:
    """A request line of smtpd, with its LF."""
    head = [b"filter", version.encode(), TIME, b"smtp-in", phase.encode(), sid, token]
    return b"|".join([*head, *(fields or (b"",))]) + b"\n"


def report(
    event: str,
    *fields: bytes,
    sid: bytes = SID,
    version: str = "0.7",
    subsystem: str = "smtp-in",
) -> bytes:
    """A report line of smtpd, with its LF."""
    head = [b"report", version.encode(), TIME, subsystem.encode(), event.encode(), sid]
    return b"|".join([*head, *fields]) + b"\n"


@dataclass
class Mail:
    """A transaction as it was when it ended."""

    message_id: str
    mail_from: str | None
    rcpt_to: list[str]
    envelope_ids: list[str]


@dataclass
class Seen:
    """What was known of a session at its last event."""

    session: Session
    mails: list[Mail] = field(default_factory=list)


class Driver:
    """Answers every request at once and echoes every data line.

    Args:
        decide: gives the decision for a request, or raises DecisionError.
        max_sessions: as for Connection.
    """

    def __init__(
        self, decide: Callable[[Call], Decision] = lambda call: PROCEED, max_sessions: int = 1 << 17
    ) -> None:
        self.guard = Guard()
        self.decide = decide
        self.problems: list[RemoteProtocolError] = []
        self.evicted: list[Session] = []
        self.calls: list[Call] = []
        self.chunks: list[Chunk] = []
        self.seen: dict[bytes, Seen] = {}
        self.connection = Connection(
            deliver=[(sub, end) for sub in ("smtp-in", "smtp-out") for end in _ENDS],
            max_sessions=max_sessions,
            on_problem=self.problems.append,
            on_evict=self.evicted.append,
        )

    def feed(self, pieces: bytes | Iterable[bytes]) -> bytes:
        """Give input, in one piece or several; return what is written for smtpd."""
        out = []
        for piece in [pieces] if isinstance(pieces, bytes) else pieces:
            for session in self.connection.receive(piece):
                while session.queue:
                    out.append(self._take(session, session.queue.popleft()))
                session.queued = False
        return b"".join(out)

    def one(self) -> Session:
        """The only session there was."""
        (seen,) = self.seen.values()
        return seen.session

    def mails(self) -> list[Mail]:
        """Every transaction that has ended, in order."""
        return [mail for seen in self.seen.values() for mail in seen.mails]

    def _take(self, session: Session, item: Call | Chunk | bytes) -> bytes:
        self.seen.setdefault(session.sid, Seen(session))
        if isinstance(item, bytes):
            session.add_report(item)
            return b""
        if isinstance(item, Chunk):
            self.chunks.append(item)
            return self.guard.data(item.stream, item.lines, item.ended)
        self.calls.append(item)
        if item.token is None:
            self._note_end(session, item)
            return b""
        self.guard.expect(item, 30.0, 0.0)
        try:
            answer = self.guard.answer(item, self.decide(item))
        except DecisionError:
            answer = self.guard.answer(item, last_resort(item))
        assert answer is not None
        return answer

    def _note_end(self, session: Session, call: Call) -> None:
        tx = session.tx
        if tx is not None and call.hook.wire == "tx-reset":
            mail = Mail(tx.message_id, tx.mail_from, list(tx.rcpt_to), list(tx.envelope_ids))
            self.seen[session.sid].mails.append(mail)
        session.add_report(call.line)
