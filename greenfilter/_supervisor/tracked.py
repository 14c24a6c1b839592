"""A session as the supervisor sees it: its reports, kept for the next worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _control
from ..protocol import Connection, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..protocol import Call
    from .process import WorkerProcess

    Assign = Callable[["Tracked"], WorkerProcess | None]

# smtpd takes 1,000 recipients for a message by default; their reports have some 400 KB.
_MAX_KEPT_BYTES = 2 << 20
_OF_SESSION = frozenset(
    [b"link-connect", b"link-greeting", b"link-identify", b"link-tls", b"link-auth"]
)
_OF_TRANSACTION = frozenset(
    [b"tx-begin", b"tx-mail", b"tx-rcpt", b"tx-envelope", b"tx-data", b"tx-commit"]
)
_MAX_UNSORTED = 24


class Tracked(Session):
    """A session with what a new worker would have to be told of it.

    Reports are kept as they came. They are sorted only when there are many, and read only when a
    worker has died.

    Args:
        assign: gives the worker for a session, or None while there is none.
        sid, incoming, needs: as for :class:`~greenfilter.Session`.

    Attributes:
        worker: whose hands it is in; None while there is no worker.
        owed: the request that smtpd waits for and the worker works on.
        overflowed: the transaction has too many reports to keep: no new worker could know the
            truth of it.
        stale: requests that were answered here while the worker still works on them. Until it has
            answered those too, nothing else of the session is given to it: all have one token.
    """

    __slots__ = (
        "_assign",
        "_facts",
        "_kept_bytes",
        "_last",
        "_open",
        "_unsorted",
        "overflowed",
        "owed",
        "stale",
    )

    def __init__(self, assign: Assign, sid: bytes, incoming: bool, needs: int) -> None:
        super().__init__(sid, incoming, needs)
        self._facts: dict[bytes, bytes] = {}  # the last report of each event of the session
        self._open: list[bytes] = []  # of the transaction
        self._last: list[bytes] = []  # of the one before, which may go on in smtp-out
        self._kept_bytes = 0
        self._unsorted: list[bytes] = []  # the newest
        self.owed: Call | None = None
        self.overflowed = False
        self.stale = 0
        self._assign = assign
        self.worker = assign(self)

    def add_report(self, line: bytes) -> None:
        """Keep a report for the next worker, and pass it on to the present one."""
        if self.worker is not None:
            self.worker.link.send(line + b"\n")
        self._keep_report(line)

    def add_history(self, line: bytes) -> None:
        """The same, but no handler is called for it."""
        if self.worker is not None:
            ended = line.split(b"|", 5)[4] == b"link-disconnect"
            told = _control.FORGET + self.sid if ended else _control.REPLAY + line
            self.worker.link.send(told + b"\n")
        self._keep_report(line)

    def keep_fact(self, line: bytes) -> None:
        """Keep for the next worker what a worker has said of the session, in place of the last."""
        self._facts[line.split(b"|", 5)[4]] = line

    def _keep_report(self, line: bytes) -> None:
        self._unsorted.append(line)
        if self.worker is None:
            overflowed = self.overflowed
            self.sort()
            if overflowed and not self.overflowed and (worker := self._assign(self)) is not None:
                self.move_to(worker)
        elif len(self._unsorted) > _MAX_UNSORTED:
            self.sort()

    def sort(self) -> None:
        """Bring :attr:`overflowed` up to date, and keep nothing that has become history."""
        unsorted, self._unsorted = self._unsorted, []
        for line in unsorted:
            event = line.split(b"|", 5)[4]
            if event in _OF_TRANSACTION:
                self._keep(line)
            elif event == b"filter-response":
                # One that rewrites goes with the tx-mail or tx-rcpt that follows it; another one
                # says something only right after such a one.
                if b"|rewrite|" in line or (self._open and b"|filter-response|" in self._open[-1]):
                    self._keep(line)
            elif event in _OF_SESSION:
                self._facts[event] = line
            elif event == b"tx-reset":
                self._end_transaction(line)

    def in_transaction(self) -> bool:
        """Whether a transaction is open, as far as the filter wants to know of any."""
        self.sort()
        return len(self._open) > 0

    def is_between_transactions(self) -> bool:
        """Whether another worker could go on with it, and nobody would notice."""
        if self.owed is not None or self.stale or self.last_stream is not None:
            return False  # what was decided about a message is known to its worker until commit
        return not self.in_transaction()

    def kept(self) -> list[bytes]:
        """Give the reports that lead to the present state."""
        self.sort()
        return [*self._facts.values(), *self._last, *self._open]

    def state(self) -> Session:
        """Give what is known of the session and its transaction."""
        session = Session(self.sid, self.incoming)
        for line in self.kept():
            session.add_report(line)
        return session

    def move_to(self, worker: WorkerProcess) -> None:
        """Give it to a worker that does not know it yet."""
        self.worker = worker
        worker.sessions[self.sid] = self
        worker.link.send(b"".join(_control.REPLAY + line + b"\n" for line in self.kept()))

    def _keep(self, line: bytes) -> None:
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


class TrackedConnection(Connection):
    """The parser, making tracked sessions.

    Attributes:
        assign: gives the worker for a session, or None while there is none; to be set before the
            first input.
    """

    assign: Assign

    def make_session(self, sid: bytes, incoming: bool) -> Session:
        """Make a session, and give it to a worker."""
        return Tracked(self.assign, sid, incoming, self.needs)
