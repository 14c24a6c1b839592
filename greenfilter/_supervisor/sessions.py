"""All sessions, with what a new worker would have to know of each, and the worker that has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _control
from ..errors import RemoteProtocolError
from ..protocol import LONGEST_MESSAGE, Connection, Session
from ..protocol._catalogue import ENDS_TRANSACTION, STATE_OF_SESSION, STATE_OF_TRANSACTION

if TYPE_CHECKING:
    from ..protocol import Call
    from .process import WorkerProcess

# smtpd takes 1,000 recipients for a message by default; their reports have some 400 KB.
_MAX_KEPT_BYTES = 2 << 20
_MAX_UNSORTED = 24
# A worker that has said nothing for this long (seconds) gets no new sessions if another one is
# there.
_SILENT_SECONDS = 1.0


class SupervisedSession(Session):
    """A session with what a new worker would have to know of it.

    Reports are kept as they came. They are sorted only when there are many, and read only when a
    worker has died.

    Attributes:
        worker: the worker that has it; None while there is none.
        owed: the request that smtpd waits for and the worker works on.
        asked_at: bytes that the worker had been given before that request.
        overflowed: the transaction has too many reports to keep: no new worker could know the
            truth of it.
        stale: requests that were answered here while the worker still works on them. Until it has
            answered those too, nothing else of the session is given to it: all have one token.
    """

    __slots__ = (
        "_facts",
        "_kept_bytes",
        "_last",
        "_open",
        "_unsorted",
        "asked_at",
        "overflowed",
        "owed",
        "stale",
    )

    def __init__(self, sid: bytes, incoming: bool, needs: int) -> None:
        super().__init__(sid, incoming, needs)
        self._facts: dict[bytes, bytes] = {}  # the last report of each event of the session
        self._open: list[bytes] = []  # of the transaction
        self._last: list[bytes] = []  # of the one before, which may go on in smtp-out
        self._kept_bytes = 0
        self._unsorted: list[bytes] = []  # the newest
        self.owed: Call | None = None
        self.asked_at = 0
        self.overflowed = False
        self.stale = 0

    def keep(self, line: bytes) -> None:
        """Keep a report for the next worker."""
        self._unsorted.append(line)
        if len(self._unsorted) > _MAX_UNSORTED:
            self.sort_reports()

    def keep_fact(self, line: bytes) -> None:
        """Keep for the next worker what a worker has said of the session, in place of the last."""
        self._facts[line.split(b"|", 5)[4]] = line

    def sort_reports(self) -> None:
        """Bring :attr:`overflowed` up to date, and keep nothing that has become history."""
        unsorted, self._unsorted = self._unsorted, []
        for line in unsorted:
            event = line.split(b"|", 5)[4]
            if event in STATE_OF_TRANSACTION:
                self._keep_of_transaction(line)
            elif event == b"filter-response":
                # One that rewrites goes with the tx-mail or tx-rcpt that follows it; another one
                # says something only right after such a one.
                if b"|rewrite|" in line or (self._open and b"|filter-response|" in self._open[-1]):
                    self._keep_of_transaction(line)
            elif event in STATE_OF_SESSION:
                self._facts[event] = line
            elif event in ENDS_TRANSACTION:
                self._end_transaction(line)

    def in_transaction(self) -> bool:
        """Return whether a transaction is open, as far as the filter wants to know of any."""
        self.sort_reports()
        return len(self._open) > 0

    def is_waited_for(self) -> bool:
        """Return whether smtpd waits for an answer, or for the end of a message."""
        stream = self.last_stream
        if stream is not None and self.stream is None and stream.open:
            return True
        return self.owed is not None

    def is_between_transactions(self) -> bool:
        """Return whether another worker could go on with it unnoticed."""
        if self.owed is not None or self.stale or self.last_stream is not None:
            return False  # what was decided about a message is known to its worker until commit
        return not self.in_transaction()

    def reports(self) -> list[bytes]:
        """Return the reports that lead to the present state."""
        self.sort_reports()
        return [*self._facts.values(), *self._last, *self._open]

    def state(self) -> Session:
        """Return what is known of the session and its transaction."""
        session = Session(self.sid, self.incoming)
        for line in self.reports():
            session.add_report(line)
        return session

    def _keep_of_transaction(self, line: bytes) -> None:
        self._kept_bytes += len(line)
        if self._kept_bytes <= _MAX_KEPT_BYTES:
            self._open.append(line)
        else:
            self.overflowed = True

    def _end_transaction(self, line: bytes) -> None:
        self._last = [] if self.incoming else [*self._open, line]
        self._open = []
        self._kept_bytes = 0
        self.overflowed = False


class Sessions(Connection):
    """The parser, and the table of the sessions that it has found.

    Args:
        on_problem, on_evict, on_close: as for the parser.

    Attributes:
        homes: the worker that gets new sessions, for each of the ``--workers``, or None.
        clock: gives the time (seconds).
        apart: sessions whose lines cannot pass unread: no worker has them, or another one than
            their ids say, or they still get an answer that comes too late.
        dealt_to: who has been given what is read now, if it has passed unread.
    """

    def __init__(
        self,
        on_problem: Callable[[RemoteProtocolError], None],
        on_evict: Callable[[Session], None],
        on_close: Callable[[Session], None],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(on_problem=on_problem, on_evict=on_evict, on_close=on_close)
        self.homes: list[WorkerProcess | None] = [None]
        self.clock = clock
        self.apart: set[SupervisedSession] = set()
        self.dealt_to: WorkerProcess | None = None

    def set_homes(self, homes: list[WorkerProcess | None]) -> None:
        """Change who gets new sessions, and give those without a worker to one."""
        if homes != self.homes:
            self.homes = homes
            everybody: list[Any] = list(self.sessions.values())
            for session in everybody:
                self.place(session)
        self.adopt_all()

    def place(self, session: SupervisedSession) -> None:
        """Note whether lines of a session can pass unread."""
        worker = session.worker
        if worker is None or session.stale or worker is not self.deal(session.sid):
            self.apart.add(session)
        else:
            self.apart.discard(session)

    def make_session(self, sid: bytes, incoming: bool) -> Session:
        """Make a session, and give it to a worker."""
        session = SupervisedSession(sid, incoming, self.needs)
        worker = session.worker = self.dealt_to or self._home_of(sid)
        if worker is not None:
            worker.sessions[sid] = session
        self.place(session)
        return session

    def deal(self, sid: bytes) -> WorkerProcess | None:
        """Return whose sessions with such an id are, while all workers are well."""
        return _pick(sid, self.homes)

    def find_silent(self, seconds: float, knows_transactions: bool) -> list[SupervisedSession]:
        """Find the sessions of which smtpd has said nothing since the last call.

        Those in whose transaction a message may be coming are left out for a day.

        Args:
            seconds: between two calls.
            knows_transactions: whether smtpd tells when transactions begin.
        """
        found: list[SupervisedSession] = []
        lost = self.generation - LONGEST_MESSAGE // seconds
        everybody: list[Any] = list(self.sessions.values())
        for session in everybody:
            if session.seen >= self.generation or session.is_waited_for():
                continue
            if session.seen < lost or (knows_transactions and not session.in_transaction()):
                found.append(session)
        self.generation += 1
        return found

    def is_lively(self, worker: WorkerProcess | None) -> bool:
        """Tell whether a worker has loaded, and has said something lately."""
        if worker is None or worker.hello is None:
            return False
        return worker.beat > self.clock() - _SILENT_SECONDS

    def _home_of(self, sid: bytes) -> WorkerProcess | None:
        home = self.deal(sid)
        if len(self.homes) == 1 or self.is_lively(home):
            return home
        lively = [other for other in self.homes if self.is_lively(other)]
        return _pick(sid, lively) if lively else home

    def move(self, session: SupervisedSession, worker: WorkerProcess) -> None:
        """Give a session to a worker that does not know it yet, and take it from its own."""
        self.take_away(session)
        session.worker = worker
        worker.sessions[session.sid] = session
        self.place(session)
        replay = b"".join(_control.REPLAY + line + b"\n" for line in session.reports())
        worker.link.send(replay)

    def take_away(self, session: SupervisedSession) -> None:
        """Leave a session without a worker, and tell its own."""
        worker = session.worker
        if worker is not None:
            worker.sessions.pop(session.sid, None)
            worker.link.send(_control.FORGET + session.sid + b"\n")
            session.worker = None
            self.place(session)

    def send_home(self, session: SupervisedSession) -> None:
        """Give a session that no worker has to the one that it belongs to, if it is there."""
        session.sort_reports()
        worker = None if session.overflowed else self._home_of(session.sid)
        if worker is not None:
            self.move(session, worker)

    def adopt_all(self) -> None:
        """Give the sessions without a worker to one."""
        for session in list(self.apart):
            if session.worker is None and not session.closed:
                self.send_home(session)

    def remove(self, session: SupervisedSession, call: Call | None) -> None:
        """Note that a session has ended.

        Args:
            session: which.
            call: the request that its worker still works on.
        """
        self.apart.discard(session)
        if session.worker is not None:
            session.worker.sessions.pop(session.sid, None)
            session.worker.departed.append((session, call))

    def take_from(self, worker: WorkerProcess) -> list[SupervisedSession]:
        """Take all sessions from a worker that has ended."""
        sessions: list[SupervisedSession] = list(worker.sessions.values())
        worker.sessions.clear()
        for session in sessions:
            session.worker, session.stale = None, 0
        self.apart.update(sessions)
        return sessions

    def of_line(self, worker: WorkerProcess, line: bytes) -> SupervisedSession | None:
        """Find the session of a worker's line, if it is this worker's."""
        # Which of the two ids comes first depends on the version of the protocol.
        _, first, second, _ = (*line.split(b"|", 3), b"", b"", b"")[:4]
        session: Any = worker.sessions.get(first) or worker.sessions.get(second)
        return session if session is not None and session.worker is worker else None


def _pick(sid: bytes, workers: list[WorkerProcess | None]) -> WorkerProcess | None:
    """Choose one of several by the id of a session."""
    return workers[0] if len(workers) == 1 else workers[int(sid[-4:], 16) % len(workers)]
