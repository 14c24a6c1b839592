"""Lines between smtpd and the workers.

Theory of operation: while all is well, the supervisor passes on what smtpd says as it came, enters
the requests in a ledger, and notes the piece in a journal (``ledger.py``, ``journal.py``). Answers
pass as they came too, if the ledger can tell that they are legal. Nobody has looked at any session
then. Whatever is not so simple is read, line by line, by ``requests.py`` and ``results.py``, which
know the state of each session; before that, they read the journal. All is well as long as each of
the ``--workers`` serves, has the sessions whose ids say so, and owes no late answer, there are no
others, and nothing that may have ended a worker is to be looked for. Among several workers, lines
are dealt out by the ids of their sessions. Commit after a message, each final dot, and each answer
that is not proceed are always read; lines in the middle of a message pass as they are.

    smtpd --> Router --> ledger, journal -------------------> worker
                 `-----> Sessions (parser) --> Requests ----> worker
    worker -> Router --> ledger, journal -------------------> smtpd
                 `-----> Results ----------> Answers (guard) -> smtpd
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _control
from .._control import Hello
from .._process.log import session_logger
from ..errors import ProtocolError
from ..protocol import EVENTS
from .answers import DEADLINE, GRACE, Answers
from .journal import Journal, Piece, Skipped, departures, sessions_of, without
from .message import passage_of
from .poison import Poison, report_kind
from .quarantine import Quarantine
from .requests import Requests
from .results import Results
from .sessions import Sessions, SupervisedSession

if TYPE_CHECKING:
    from ..protocol import Call
    from .process import WorkerProcess

_DATA_LINE = re.compile(rb"filter\|[^|\n]*\|[^|\n]*\|[^|\n]*\|data-line\|([0-9a-f]{16})\|")
_MAX_LINE = 1 << 20
_NO_LIMIT = 1 << 62
# A beginning of a line that is longer goes to the parser, which knows how to cut it.
_LONG_REST = 1 << 16


class Router:
    """Passes lines on, answers what a worker cannot.

    Args:
        send: queues bytes for smtpd.
        flush: writes them, as far as smtpd takes them.

    Attributes:
        sessions: what smtpd says, and whose hands each session is in.
        answers: what smtpd is owed.
        poison: what has ended workers, and what may have.
        quarantine: where that is tried.
        said: lines of workers' that are for whoever looks after them, who takes them out.
        clock: gives the time (monotonic seconds).
    """

    def __init__(
        self, send: Callable[[bytes], None], flush: Callable[[], None] = lambda: None
    ) -> None:
        self.flush = flush
        self.clock: Callable[[], float] = time.monotonic
        self._trusted: list[WorkerProcess] = []  # whom lines may be passed to unread
        self._shortest = DEADLINE + GRACE  # a request can be late after these seconds
        self.answers = Answers(send)
        self.sessions = Sessions(
            self._on_problem,
            self._on_evict,  # type: ignore[arg-type]
            self._on_close,  # type: ignore[arg-type]
            lambda: self.clock(),
        )
        self.sessions.queue_all = True
        self.answers.guard.config = self.sessions.config
        self.poison = Poison(lambda: self.clock())
        self.quarantine = Quarantine(self.poison, self.sessions, self.answers, lambda: self.clock())
        parts = (self.sessions, self.answers, self.poison, self.quarantine)
        self._requests = Requests(*parts)
        self._results = Results(*parts)
        self.said = self._results.said
        self._send = send
        self._ledger = self.answers.ledger
        self._journal = Journal()
        self._skipped = Skipped()
        self._rest = b""  # the beginning of a line of smtpd's
        self._kinds: set[object] = set()  # of poison that the parser knows of
        self._next_round = 0.0
        self._not_begun: list[tuple[SupervisedSession, Call]] = []

    def trust(self, workers: list[WorkerProcess]) -> None:
        """Choose whom lines may be passed to unread.

        Args:
            workers: all of the ``--workers``, if they have loaded and there are no others; or none.
        """
        if workers == self._trusted:
            return
        self.catch_up()
        self._trusted = workers
        self._skipped.clear()
        hellos = [worker.hello for worker in workers if worker.hello is not None]
        deadlines = [seconds for hello in hellos for seconds in hello.deadlines.values()]
        self._shortest = min(deadlines, default=DEADLINE) + GRACE

    # smtpd to workers

    def from_smtpd(self, data: bytes) -> None:
        """Take a piece of smtpd's output."""
        data, self._rest = self._rest + data, b""
        if not self._may_pass_unread() or not self.sessions.is_between_lines():
            self._read(data)
            return
        end = data.rfind(b"\n") + 1
        if len(data) - end > _LONG_REST:
            self._read(data)
            return
        lines, self._rest = data[:end], data[end:]
        if not lines:
            return
        if b"|data-line|" in lines:
            self._data_lines(lines)
            return
        if (self._requests.has_messages and b"|commit|" in lines) or _control.PREFIX in lines:
            self._read(lines)
            return
        shares = self._deal_out(lines)
        if not shares:
            self._read(lines)
            return
        self._ledger.owe_all(lines)
        if b"|link-disconnect|" in lines:
            self._ledger.forget(departures(lines)[1])
        now = self.clock()
        for worker, share in shares:
            self._journal.note_requests(now, worker, share)
            worker.link.send(share)
        if self._journal.is_long:
            self.catch_up()

    def _deal_out(self, lines: bytes) -> list[tuple[WorkerProcess, bytes]]:
        """Return what each worker is to get of whole lines; nothing if they have to be read."""
        workers = self._trusted
        if len(workers) == 1:
            return [(workers[0], lines)]
        sids, separate = sessions_of(lines), lines.split(b"\n")
        separate.pop()
        if len(sids) != len(separate):
            return []
        shares: dict[WorkerProcess | None, list[bytes]] = {}
        for sid, line in zip(sids, separate, strict=True):
            shares.setdefault(self.sessions.deal(sid), []).append(line)
        return [
            (worker, b"\n".join(share) + b"\n")
            for worker, share in shares.items()
            if worker is not None
        ]

    def _data_lines(self, lines: bytes) -> None:
        """Take a piece with lines of a message; they are in no journal."""
        self.catch_up()
        found = _DATA_LINE.match(lines)
        session: Any = self.sessions.sessions.get(found[1]) if found is not None else None
        worker = self._requests.may_pass(session, lines) if session is not None else None
        if worker is not None:
            worker.link.send(lines)
        else:
            self._read(lines)

    def _may_pass_unread(self) -> bool:
        """Tell whether all is well."""
        workers, sessions = self._trusted, self.sessions
        if not workers or sessions.apart or self.poison.kinds:
            return False
        return len(workers) == 1 or all(map(sessions.is_lively, workers))

    def _read(self, data: bytes) -> None:
        self.catch_up()
        self._requests.now = self.clock()
        self._requests.take(self.sessions.receive(data))

    # Workers to smtpd

    def from_worker(self, worker: WorkerProcess, data: bytes) -> None:
        """Take a piece of a worker's output."""
        if worker.tail:
            data = worker.tail + data
        end = data.rfind(b"\n") + 1
        lines, worker.tail = (data, b"") if end == len(data) else (data[:end], data[end:])
        if len(worker.tail) > _MAX_LINE:
            worker.tail = worker.tail[:_MAX_LINE]
        if worker in self._trusted:
            if lines.startswith(_control.ALIVE):
                worker.beat = self.clock()
                lines = lines[len(_control.ALIVE) :]
            answered = self._ledger.payable(lines)
            if answered and self._are_of(worker, answered):
                worker.mute = None
                self._ledger.pay(answered)
                self._journal.note_answers(self.clock(), worker, answered)
                self._send(lines)
                return
        if lines:
            self.catch_up()
            self._results.take(worker, lines)

    def _are_of(self, worker: WorkerProcess, pairs: list[bytes]) -> bool:
        """Tell whether a worker has the sessions that it answers for."""
        if len(self._trusted) == 1:
            return True
        deal = self.sessions.deal
        return not self.sessions.apart and all(deal(pair[:16]) is worker for pair in pairs)

    # The journal

    def catch_up(self) -> None:
        """Read what has passed unread. Safe at any time."""
        pieces = self._journal.take()
        if not pieces:
            return
        gone, _ = departures(b"".join([piece.lines for piece in pieces]))
        if gone:
            self._skipped.add(pieces)
            pieces = without(pieces, gone)
        self._read_behind(pieces)

    def recall(self, sids: set[bytes]) -> None:
        """Read what was skipped lately of sessions whose code still runs though they have ended.

        Args:
            sids: their ids; others do not matter.
        """
        sids = sids - self.sessions.sessions.keys()
        if sids:
            self._read_behind(self._skipped.of(sids))

    def _read_behind(self, pieces: list[Piece]) -> None:
        sessions, most = self.sessions, self.sessions.max_sessions
        self.answers.reading_behind, sessions.max_sessions = True, _NO_LIMIT
        try:
            for piece in pieces:
                if piece.lines:
                    sessions.dealt_to = piece.worker
                    self._requests.now, self._requests.position = piece.time, piece.position
                    self._requests.take(sessions.receive(piece.lines))
                else:
                    self._results.catch_up(piece.worker, piece.answered)
        finally:
            self.answers.reading_behind, sessions.dealt_to = False, None
            sessions.max_sessions = most
        self._trim()

    def _trim(self) -> None:
        """Let the oldest sessions go that are too many, as the parser does while it reads.

        Not while it reads behind: what is owed by then cannot be told from what is owed now.
        """
        sessions = self.sessions
        surplus = len(sessions.sessions) - sessions.max_sessions
        if surplus > 0:
            idle = [each for each in sessions.sessions.values() if each.owed is None]  # type: ignore[attr-defined]
            for session in idle[:surplus]:
                sessions.evict(session)

    # Answers that no worker gives

    def expire(self) -> None:
        """Answer by policy what waits past its deadline; its worker may be in a busy loop."""
        now = self.clock()
        guard = self.answers.guard
        if self._journal.is_due(now, self._shortest) or guard.expired(now):
            self.catch_up()  # what seems to be late may have been answered unread
        self.poison.expire()
        self.look_at_reports()
        for patient in self.quarantine.late(now):
            passage = passage_of(patient.stream)
            if patient.stream is not None and passage is not None:
                self.answers.refuse_held(patient.session, patient.stream, passage)
        hello = self.answers.hello
        if hello is not None:
            self.sessions.max_sessions = hello.max_sessions * len(self.sessions.homes)
            if now >= self._next_round:
                self.catch_up()
                self._forget_silent(hello, now)
        for call in guard.expired(now):
            session: Any = call.session
            if session.owed is call:
                self._overtake(session)
            session_logger(session.id).error(
                "no answer from the worker to %s in time; answered by policy", call.hook.wire
            )
            self.answers.give_policy(session, call)

    def _overtake(self, session: SupervisedSession) -> None:
        """Note that a session's request is answered here, and its worker's answer will be late."""
        session.owed = None
        worker = session.worker
        if worker is None:
            return
        session.stale += 1
        self.sessions.place(session)
        if session.sid not in self.quarantine.inside:  # where it may have come late
            worker.mute = self.clock() if worker.mute is None else worker.mute

    def look_at_reports(self) -> None:
        """Make the parser hand over reports of the kinds whose handlers have ended workers."""
        if self._kinds == self.poison.kinds:
            return
        self._kinds = set(self.poison.kinds)
        events = [event.wire for event in EVENTS.values()]
        self.sessions.deliver(
            (subsystem, wire)
            for wire in events
            if report_kind(wire) in self._kinds
            for subsystem in ("smtp-in", "smtp-out")
        )

    def _forget_silent(self, hello: Hello, now: float) -> None:
        """Drop the sessions of which smtpd has said nothing since the last round.

        Between two rounds smtpd would have ended them, and a request have met its deadline.
        """
        longest = max(hello.deadlines.values(), default=DEADLINE)
        seconds = self.sessions.config.smtp_session_timeout + longest + GRACE
        self._next_round = now + seconds
        knows_transactions = ("smtp-in", "tx-begin") in hello.reports
        for session in self.sessions.find_silent(seconds, knows_transactions):
            self.answers.once.warn("silent", f"{session.id}: smtpd said nothing of it for long")
            self.sessions.forget(session)
            self._on_close(session)

    def abandon(self, worker: WorkerProcess, begun: int | None = None) -> None:
        """Answer what a worker that is gone owed, and release its sessions.

        Args:
            worker: which.
            begun: bytes that it has read: requests that were behind them wait for the next worker.
                None answers all.
        """
        for session in self.sessions.take_from(worker):
            self.answers.cut_off(session)
            call, session.owed = session.owed, None
            if call is None:
                continue
            if begun is not None and session.asked_at >= begun:
                self._not_begun.append((session, call))
            else:
                self.answers.give_policy(session, call)

    def ask_again(self) -> None:
        """Ask the next worker what the last one had not begun with, if there is one."""
        not_begun, self._not_begun = self._not_begun, []
        for session, call in not_begun:
            self.answers.forget(call)
            self._requests.ask(session, call, self.clock())

    # What the parser tells

    def _on_close(self, session: SupervisedSession) -> None:
        call, session.owed = session.owed, None
        if call is not None:
            self.answers.forget(call)  # smtpd waits for nothing any more
        self.sessions.remove(session, call)
        patient = self.quarantine.inside.get(session.sid)
        if patient is not None and patient.call is None:
            self.quarantine.release(session.sid, well=False)

    def _on_evict(self, session: SupervisedSession) -> None:
        self.answers.once.warn("evict", f"{session.id}: too many sessions; let go")
        self.answers.cut_off(session)
        call = session.owed
        if call is not None:
            self.answers.give_policy(session, call)
        self._on_close(session)

    def _on_problem(self, problem: ProtocolError) -> None:
        self.answers.once.warn(str(problem), f"from smtpd: {problem}")
