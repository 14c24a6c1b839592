"""The worker in which suspects are tried; it is started when there is one.

A session stays for one request or one message, alone if it has to be, and then returns to its own
worker. Each worker learns of it as after a death: state is rebuilt from reports, and local objects
are made again. Other suspects wait for their turn; those that would wait past the deadline are
answered by policy. ``poison.py`` says why a session gets here.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._process.log import session_logger
from ..protocol import Call, Guard, Stream
from .answers import Answers
from .message import passage_of
from .poison import Key, Poison
from .sessions import Sessions, SupervisedSession

if TYPE_CHECKING:
    from .process import WorkerProcess

_IDLE_SECONDS = 5.0
# A filter that sends itself one of these is running code, and has left its mark.
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
# Its worker keeps the deadline itself.
_GRACE_SECONDS = 2.0


class Patient:
    """One session with one request or message to be tried.

    Args:
        session: the session that it belongs to.
        key: of the suspect.
        alone: not together with others.
        deadline: seconds that it may wait, and the same again that the worker may take.
        call: the request, or None.
        stream: the message, or None.

    Attributes:
        until: time at which it has waited, or taken, too long.
    """

    __slots__ = ("alone", "call", "deadline", "key", "session", "stream", "until")

    def __init__(
        self,
        session: SupervisedSession,
        key: Key,
        alone: bool,
        deadline: float,
        call: Call | None = None,
        stream: Stream | None = None,
    ) -> None:
        self.session = session
        self.key = key
        self.alone = alone
        self.deadline = deadline
        self.call = call
        self.stream = stream
        self.until = 0.0

    def waits(self, guard: Guard) -> bool:
        """Return whether smtpd still waits for it, and no policy has answered."""
        if self.session.closed:
            return False
        if self.call is not None:
            return guard.is_owed(self.call)
        return self.stream is not None and self.stream.consumer.held is not None


class Quarantine:
    """The ward.

    Args:
        poison: learns how they have done.
        sessions: the table.
        answers: what smtpd is owed.
        clock: gives the time (monotonic seconds).

    Attributes:
        worker: the worker in charge, once it has loaded the filter; else None.
        inside: those that are in its hands, by session id.
        waiting: those whose turn has not come.
    """

    def __init__(
        self, poison: Poison, sessions: Sessions, answers: Answers, clock: Callable[[], float]
    ) -> None:
        self.worker: WorkerProcess | None = None
        self.inside: dict[bytes, Patient] = {}
        self.waiting: deque[Patient] = deque()
        self._poison = poison
        self._sessions = sessions
        self._answers = answers
        self._clock = clock
        self._retired = False
        self._idle_since = 0.0

    def enter(self, patient: Patient) -> None:
        """Try a session as soon as there is room."""
        patient.until = self._clock() + patient.deadline
        self.waiting.append(patient)
        self.admit()

    def open(self, worker: WorkerProcess) -> None:
        """Begin: a worker for it has loaded the filter."""
        self.worker = worker
        self._retired = False
        self._idle_since = self._clock()
        self.admit()

    def admit(self) -> None:
        """Admit whose turn it is."""
        while self.waiting:
            patient = self.waiting[0]
            if not patient.waits(self._answers.guard):
                self.waiting.popleft()
                continue
            if self.worker is None:
                return  # whoever looks after the workers sees that one is wanted
            others = self.inside.values()
            if self._retired or (others and (patient.alone or any(p.alone for p in others))):
                return
            self.waiting.popleft()
            self._let_in(patient, self.worker)

    def _let_in(self, patient: Patient, worker: WorkerProcess) -> None:
        session = patient.session
        self.inside[session.sid] = patient
        patient.until = self._clock() + patient.deadline + _GRACE_SECONDS
        self._sessions.move(session, worker)
        self._treat(patient, worker)

    def _treat(self, patient: Patient, worker: WorkerProcess) -> None:
        """Send the worker what a patient is there for."""
        session, call, stream = patient.session, patient.call, patient.stream
        passage = passage_of(stream)
        if call is not None:
            session.owed, session.asked_at = call, worker.link.given
            worker.link.send(call.line + b"\n")
        elif stream is not None and passage is not None:
            passage.worker = worker
            self._answers.release_held(stream, passage)

    def release(self, sid: bytes, *, well: bool) -> None:
        """Send a session back to its own worker.

        Args:
            sid: its id.
            well: the worker has dealt with what it was there for.
        """
        patient = self.inside.pop(sid, None)
        if patient is None:
            return
        if well:
            self._poison.absolve(patient.key)
        session = patient.session
        if not session.closed and session.worker is self.worker:
            self._sessions.take_away(session)
            self._sessions.send_home(session)
        self._idle_since = self._clock()
        self.admit()

    def late(self, now: float) -> list[Patient]:
        """Return the messages that have waited for too long: they wait no more.

        Sessions whose worker does not answer make no room: it is taken for mute.
        """
        for patient in self.inside.values():
            if patient.call is not None and now > patient.until and self.worker is not None:
                self.worker.mute = self.worker.mute or patient.until
        guard = self._answers.guard
        late = [p for p in self.waiting if p.call is None and p.waits(guard) and now > p.until]
        for patient in late:
            self.waiting.remove(patient)
        return late

    def lose(self, blamed: bool) -> None:
        """Judge after its worker has ended: a patient alone in it is poison, others may be.

        Args:
            blamed: what was inside may be the reason.
        """
        worker, self.worker = self.worker, None
        inside, self.inside = list(self.inside.values()), {}
        if worker is None or not blamed:
            return
        ran = dict(worker.marked())
        marked = [patient for patient in inside if patient.session.sid in ran]
        if not marked and worker.exit_code() in _FROM_OUTSIDE:
            return  # each is tried again as it was
        if len(inside) == 1:
            patient = inside[0]
            seconds = self._poison.condemn(patient.key)
            session_logger(patient.session.id).error(
                "worker %d, in quarantine, ended with nothing but %s in its hands: "
                "not tried again for %d minutes",
                *(worker.pid, patient.key[0], seconds // 60),
            )
            return
        self._poison.suspect([patient.key for patient in marked or inside], alone=True)

    def retire(self) -> None:
        """Let another worker take over, when this one has no patient."""
        self._retired = True

    def is_wanted(self) -> bool:
        """Return whether a patient waits for a worker that is not there."""
        return self.worker is None and len(self.waiting) > 0

    def is_done(self) -> bool:
        """Return whether its worker has nothing more to do."""
        if self.worker is None or self.inside:
            return False
        idle = not self.waiting and self._clock() - self._idle_since > _IDLE_SECONDS
        return self._retired or idle
