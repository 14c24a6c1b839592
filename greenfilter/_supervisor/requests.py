"""smtpd's lines on their way to the workers, where they are read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .. import _control
from .._process.log import logger, session_logger
from ..protocol import PROCEED, Call, Chunk, Stream
from .answers import Answers, pair_of
from .blame import key_of
from .message import Passage, passage_of
from .poison import ALONE, FREE, MESSAGE, REFUSED, Poison, message_key, report_key
from .quarantine import Patient, Quarantine
from .sessions import Sessions, SupervisedSession

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..protocol import Session
    from .process import WorkerProcess

# Lines of one message, which differ in time stamp and content.
_DATA_LINES = re.compile(
    rb"filter\|[^|\n]++\|[^|\n]++(\|[^|\n]++\|data-line\|[0-9a-f]{16}\|[0-9a-f]{16}\|)[^\n]*+\n"
    rb"(?:filter\|[^|\n]++\|[^|\n]++\1[^\n]*+\n)*+"
)
# Of a message that is to be tried in quarantine; a longer one is not kept back for it.
_MAX_HELD = 1 << 20


class Requests:
    """Gives the workers what smtpd says, and answers what no worker may get.

    Args:
        sessions: the table.
        answers: what smtpd is owed.
        poison: what has ended workers, and what may have.
        quarantine: where that is tried.

    Attributes:
        now: when the lines came that are dealt with.
        has_messages: smtpd has sent lines of one, so that commit is more than a request.
        position: bytes that the worker had been given before them, if they have passed unread.
    """

    def __init__(
        self, sessions: Sessions, answers: Answers, poison: Poison, quarantine: Quarantine
    ) -> None:
        self._sessions = sessions
        self._answers = answers
        self._poison = poison
        self._quarantine = quarantine
        self.now = 0.0
        self.has_messages = False
        self.position = 0

    def take(self, sessions: Iterable[Session]) -> None:
        """Handle what the parser has put into the queues of sessions."""
        for session in sessions:
            while session.queue:
                try:
                    self._empty_queue(session)
                except Exception:  # the other sessions' requests wait behind this one's
                    logger.exception("%s: the supervisor survived an error of its own", session.id)
            session.queued = False

    def _empty_queue(self, session: Any) -> None:
        queue = session.queue
        while queue:
            item = queue.popleft()
            if type(item) is Call:
                if item.body:
                    self._request(session, item)
                else:
                    self._suspected_report(session, item)
            elif type(item) is Chunk:
                self._lines(session, item)
            else:
                self._report(session, item)

    def _give(self, worker: WorkerProcess, line: bytes) -> None:
        """Give a worker a line that it has not got yet."""
        if not self._answers.reading_behind:
            worker.link.send(line + b"\n")

    def _report(self, session: SupervisedSession, line: bytes) -> None:
        worker = session.worker
        if worker is not None:
            self._give(worker, line)
        self._keep(session, line)

    def _keep(self, session: SupervisedSession, line: bytes) -> None:
        session.keep(line)
        if session.worker is None:
            overflowed = session.overflowed
            session.sort_reports()
            if overflowed and not session.overflowed and not session.closed:
                self._sessions.send_home(session)

    def _suspected_report(self, session: SupervisedSession, call: Call) -> None:
        """Take a report of a kind whose handlers have ended workers."""
        state = session.state()
        state.add_report(call.line)
        if self._poison.verdict(report_key(call.hook.wire, state)) != REFUSED:
            self._report(session, call.line)
            return
        session_logger(session.id).error(
            "a handler of report %s has ended workers before: not called", call.hook.wire
        )
        if session.worker is not None:
            ended = call.hook.wire == "link-disconnect"
            told = _control.FORGET + session.sid if ended else _control.REPLAY + call.line
            self._give(session.worker, told)
        self._keep(session, call.line)

    def _request(self, session: SupervisedSession, call: Call) -> None:
        worker = session.worker
        wait = worker.waits.get(call.hook) if worker is not None else None
        is_plain = not (session.stale or session.closed or self._poison.kinds)
        if wait is None or not is_plain or call.committed is not None:
            self.ask(session, call, self.now)
            return
        # What nearly all requests are: 5 of 85 us less for a session that is read (plain Python).
        self._answers.guard.expect(call, wait, self.now)
        self._give_request(session, worker, call)

    def _give_request(self, session: SupervisedSession, worker: WorkerProcess, call: Call) -> None:
        """Give a worker a request."""
        session.owed = call
        if self._answers.reading_behind:
            session.asked_at = self.position
            return
        session.asked_at = worker.link.given
        if call.committed is None:
            self._answers.ledger.owe(pair_of(call))
        worker.link.send(call.line + b"\n")

    def ask(self, session: SupervisedSession, call: Call, now: float) -> None:
        """Give a request to whoever can answer it.

        Args:
            session: the session that it belongs to.
            call: the request.
            now: its deadline counts from this time.
        """
        if session.closed:
            return  # smtpd waits for nothing any more
        answers = self._answers
        answers.expect(session, call, now)
        stream = call.committed
        patient = self._quarantine.inside.get(session.sid)
        if patient is not None and stream is None and not session.stale:
            self._quarantine.release(session.sid, well=False)  # its message will not be committed
            patient = None
        worker = session.worker
        if stream is not None and stream.outcome is not None:
            answers.give(call, PROCEED)  # the outcome wins
            self._quarantine.release(session.sid, well=False)
        elif worker is None or session.stale:
            answers.give_policy(session, call)
        elif patient is not None or not self._is_suspected(session, call):
            self._give_request(session, worker, call)

    def _is_suspected(self, session: SupervisedSession, call: Call) -> bool:
        """Refuse a request, or have it tried in quarantine; return whether it is either."""
        wire = call.hook.wire
        if wire not in self._poison.kinds:
            return False
        key = key_of(call)
        verdict = self._poison.verdict(key)
        if verdict == FREE:
            return False
        session.sort_reports()
        if verdict == REFUSED:
            session_logger(session.id).error("%s has ended workers before: not tried again", wire)
            self._answers.give_policy(session, call)
        elif session.overflowed:  # another worker could not learn its state
            self._answers.give_policy(session, call)
        else:
            deadline, alone = self._answers.deadline(session, wire), verdict == ALONE
            self._quarantine.enter(Patient(session, key, alone, deadline, call=call))
        return True

    # Messages

    def _lines(self, session: SupervisedSession, chunk: Chunk) -> None:
        stream = chunk.stream
        passage: Passage | None = stream.consumer
        if passage is None:
            passage = stream.consumer = self._begin(session, stream)
        if not passage.header_ended:
            passage.note_header(chunk)
            if passage.suspected and passage.header_ended:
                self._poison.suspect([message_key(session.state(), passage.header)], alone=True)
        if passage.held is None:
            self._answers.pass_lines(stream, passage, chunk.lines, chunk.ended)
            return
        passage.hold(chunk)
        if passage.header_ended:
            self._look_at_message(session, stream, passage, chunk.ended)

    def may_pass(self, session: SupervisedSession, lines: bytes) -> WorkerProcess | None:
        """Return the worker that may get a piece as it is: only lines from the middle of a message.

        Args:
            session: whose message it seems to be.
            lines: whole lines.
        """
        stream = session.stream
        passage = passage_of(stream)
        if stream is None or passage is None or passage.worker is None:
            return None
        if not passage.header_ended or passage.held is not None or b"|.\n" in lines:
            return None
        found = _DATA_LINES.fullmatch(lines)
        if found is None or not passage.prefix.endswith(found[1]):
            return None
        session.seen = self._sessions.generation
        return passage.worker

    def _begin(self, session: SupervisedSession, stream: Stream) -> Passage:
        self.has_messages = True
        passage = Passage(None if session.stale else session.worker, stream)
        if passage.worker is None:
            self._answers.bypass(stream, passage, self._answers.policy(session, "data-line"))
        elif MESSAGE in self._poison.kinds:
            session.sort_reports()
            passage.held = []
        return passage

    def _look_at_message(
        self, session: SupervisedSession, stream: Stream, passage: Passage, ended: bool
    ) -> None:
        """Decide about a message that is held, now that its header is known."""
        too_long = passage.held_bytes > _MAX_HELD
        if not passage.waits:
            key = message_key(session.state(), passage.header)
            verdict = self._poison.verdict(key)
            if verdict == FREE:
                self._answers.release_held(stream, passage)
                return
            if verdict == REFUSED or session.overflowed:
                session_logger(session.id).error("message has ended workers before: not tried")
                self._answers.refuse_held(session, stream, passage)
                return
            if not (ended or too_long):
                return  # until it is whole: nobody is to wait for this client
            passage.waits, passage.worker = True, None
            deadline, alone = self._answers.deadline(session, "data-line"), verdict == ALONE
            self._quarantine.enter(Patient(session, key, alone, deadline, stream=stream))
        if too_long and passage.held is not None:
            self._answers.refuse_held(session, stream, passage)
