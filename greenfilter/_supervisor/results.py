"""The workers' lines on their way to smtpd, where they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _control
from ..errors import DecisionError
from ..protocol import TEMPFAIL, Stream
from ..protocol._credentials import carries_credentials, redact
from .answers import Answers, parse_decision
from .message import passage_of
from .poison import Poison
from .quarantine import Quarantine
from .sessions import Sessions, SupervisedSession

if TYPE_CHECKING:
    from .process import WorkerProcess

# Bytes of "filter-dataline|SID|TOKEN|" and of "filter-result|SID|TOKEN".
_HEAD, _RESULT = 50, 47


class Results:
    """Gives smtpd what the workers say, as far as it is legal.

    Args:
        sessions: all of them.
        answers: what smtpd is owed.
        poison: what has ended workers, and what may have.
        quarantine: where that is tried.

    Attributes:
        said: lines of the workers' for the supervisor itself, to be taken by whoever looks after
            the workers.
    """

    def __init__(
        self, sessions: Sessions, answers: Answers, poison: Poison, quarantine: Quarantine
    ) -> None:
        self.said: list[tuple[WorkerProcess, bytes]] = []
        self._sessions = sessions
        self._answers = answers
        self._poison = poison
        self._quarantine = quarantine

    def take(self, worker: WorkerProcess, data: bytes) -> None:
        """Take whole lines of a worker's."""
        if data.startswith(b"filter-dataline|") and self._whole_piece(worker, data):
            return
        lines = data.split(b"\n")
        lines.pop()
        index, count = 0, len(lines)
        while index < count:
            line = lines[index]
            index += 1
            if line[:14] == b"filter-result|":
                if not self._proceed(worker, line):
                    self._result(worker, line)
            elif line.startswith(b"filter-dataline|"):
                index = self._run_of_data_lines(worker, lines, index - 1)
            elif line.startswith(_control.PREFIX):
                worker.beat = self._sessions.clock()
                if line.startswith(_control.KEEP):
                    self._keep_fact(worker, line.removeprefix(_control.KEEP))
                elif line + b"\n" != _control.ALIVE:
                    self.said.append((worker, line))
            else:
                text = f"worker wrote a line of its own: {redact(line)[:80]!r}"
                self._answers.once.warn("stray", text)

    def _keep_fact(self, worker: WorkerProcess, fact: bytes) -> None:
        words = fact.split(b"|", 6)
        session = worker.sessions.get(words[5]) if len(words) == 7 else None
        if session is not None:
            session.keep_fact(fact)

    def _whole_piece(self, worker: WorkerProcess, data: bytes) -> bool:
        """Pass a piece on that is nothing but lines of one message; return whether it is that.

        What most pieces of a long message are: 0.05 instead of 0.4 us for each line.
        """
        head = data[:_HEAD]
        if data.count(b"\n" + head) != data.count(b"\n") - 1:
            return False
        stream = self._stream_of(worker, head)
        if stream is not None and self._answers.guard.may_pass(stream, data):
            worker.mute = None
            self._answers.send(data)
        else:
            self._data_lines(worker, head, data[_HEAD:-1].split(b"\n" + head))
        return True

    def catch_up(self, worker: WorkerProcess, answered: list[bytes]) -> None:
        """Note answers that have passed unread."""
        for pair in answered:
            session = worker.sessions.get(pair[:16])
            call = session.owed if session is not None else None
            if session is not None and call is not None:
                session.owed = None
                self._answers.guard.proceed(call)

    def _proceed(self, worker: WorkerProcess, line: bytes) -> bool:
        """Pass on what nearly all answers are; return whether this is one, as in `Requests`."""
        session = worker.sessions.get(line[14:30])
        call = session.owed if session is not None else None
        if session is None or call is None or line[_RESULT:] != b"|proceed" or self._poison.kinds:
            return False
        if self._quarantine.inside or call.committed is not None:
            return False
        session.owed = worker.mute = None
        self._answers.proceed(call)
        return True

    def _result(self, worker: WorkerProcess, line: bytes) -> None:
        worker.mute = None
        session = self._sessions.of_line(worker, line)
        if session is None:  # it has ended, or another worker has it
            if worker is self._quarantine.worker:
                for sid in line.split(b"|", 3)[1:3]:
                    self._quarantine.release(sid, well=True)
            return
        call, session.owed = session.owed, None
        if call is None:
            session.stale = max(0, session.stale - 1)
            self._sessions.place(session)
            self._answers.once.warn("late", "an answer came late and was dropped")
            self._leave(worker, session)
            return
        try:
            decision = parse_decision(line.split(b"|", 3)[3])
        except (DecisionError, IndexError) as error:
            reason = "" if carries_credentials(call) else f": {error}"
            self._answers.once.warn("answer", f"worker wrote an answer that is not valid{reason}")
            decision = self._answers.policy(session, call.hook.wire)
        self._answers.give(call, decision)
        self._leave(worker, session)

    def _leave(self, worker: WorkerProcess, session: SupervisedSession) -> None:
        """Release a session from quarantine, where it has got its answer."""
        if worker is self._quarantine.worker and not session.stale:
            self._quarantine.release(session.sid, well=True)

    def _run_of_data_lines(self, worker: WorkerProcess, lines: list[bytes], index: int) -> int:
        """Pass on the run of data lines that begins at ``index``; return the index after it."""
        head = lines[index][:_HEAD]
        run = []
        for line in lines[index:]:
            if line[:_HEAD] != head:
                break
            run.append(line[_HEAD:])
        self._data_lines(worker, head, run)
        return index + len(run)

    def _data_lines(self, worker: WorkerProcess, head: bytes, run: list[bytes]) -> None:
        """Send lines of a worker's, if they are of a message that it has."""
        stream = self._stream_of(worker, head)
        passage = passage_of(stream)
        if stream is None or passage is None:
            return
        worker.mute = None
        ended = b"." in run
        if ended and stream.session.stream is stream:
            # smtpd would take a message for whole of which it has not sent the end yet.
            self._answers.once.warn("dot", "worker ended a message before its end; refused")
            self._answers.bypass(stream, passage, TEMPFAIL)
            return
        self._answers.send_lines(stream, run[: run.index(b".")] if ended else run, ended)

    def _stream_of(self, worker: WorkerProcess, head: bytes) -> Stream | None:
        """Find the message that a worker's lines belong to, if it has it."""
        session = self._sessions.of_line(worker, head)
        stream = session.last_stream if session is not None else None
        passage = passage_of(stream) if stream is not None and stream.head == head else None
        return stream if passage is not None and passage.worker is worker else None
