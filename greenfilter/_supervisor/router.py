"""Lines between smtpd and the workers, each checked in both directions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _control
from .._control import Hello
from .._process.log import logger, session_logger
from ..errors import DecisionError, ProtocolError
from ..protocol import (
    EVENTS,
    LONGEST_MESSAGE,
    PHASES,
    PROCEED,
    TEMPFAIL,
    Call,
    Chunk,
    Decision,
    Guard,
    Stream,
    last_resort,
)
from ..protocol._credentials import carries_credentials, redact
from .flow import Flow
from .poison import ALONE, FREE, MESSAGE, REFUSED, Poison, message_key, report_key, report_kind
from .quarantine import Patient, Quarantine
from .suspects import flow_of, key_of
from .tracked import Tracked, TrackedConnection

if TYPE_CHECKING:
    from .process import WorkerProcess

_COMMIT = PHASES["commit"]
_DEADLINE = 30.0
# The worker keeps its deadlines itself; the supervisor steps in this much later (seconds).
_GRACE = 0.25
_MAX_LINE = 1 << 20
# Bytes of "filter-dataline|SID|TOKEN|" and of "filter-result|SID|TOKEN".
_HEAD, _RESULT = 50, 47
_MAX_TOLD = 100
# Of a message that is to be tried in quarantine; a longer one is not kept back for it.
_MAX_HELD = 1 << 20


class Router:
    """Passes lines on, answers what a worker cannot.

    Args:
        send: queues bytes for smtpd.
        assign: gives the worker for a new session, or None.
        on_hello: is told what a worker's filter registers.
        on_worn_out: is told of a worker that should be replaced.
        on_suspect: is told that a worker is wanted for quarantine.

    Attributes:
        hello: of the filter that new sessions go to; None before the first has loaded.
        connection: what smtpd says.
        poison: what has ended workers, and what may have.
        quarantine: where that is tried.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        assign: Callable[[Tracked], WorkerProcess | None],
        on_hello: Callable[[WorkerProcess, Hello], None],
        on_worn_out: Callable[[WorkerProcess], None],
        on_suspect: Callable[[], None] = lambda: None,
    ) -> None:
        self.hello: Hello | None = None
        self.clock: Callable[[], float] = time.monotonic
        self._send = send
        self._on_hello = on_hello
        self._on_worn_out = on_worn_out
        self._guard = Guard()
        self.poison = Poison(lambda: self.clock())
        self.quarantine = Quarantine(
            self.poison, on_suspect, self._treat, self._go_home, lambda: self.clock()
        )
        self._events: set[object] = set()  # reports that are looked at
        self._told: set[str] = set()
        self._now = self.clock()
        self._next_round = 0.0
        self.connection = TrackedConnection(
            on_problem=self._on_problem,
            on_close=self._on_close,  # type: ignore[arg-type]
            on_evict=self._on_evict,  # type: ignore[arg-type]
        )
        self.connection.assign = assign
        self._guard.config = self.connection.config

    # smtpd to workers

    def from_smtpd(self, data: bytes) -> None:
        """Take a piece of smtpd's output."""
        self._now = self.clock()
        for session in self.connection.receive(data):
            while session.queue:
                try:
                    self._work_off(session)
                except Exception:  # the other sessions' requests wait behind this one's
                    logger.exception("%s: the supervisor survived an error of its own", session.id)
            session.queued = False

    def _work_off(self, session: Any) -> None:
        queue = session.queue
        while queue:
            item = queue.popleft()
            if type(item) is Call:
                if item.body:
                    self._request(session, item)
                else:
                    self._report(session, item)
            elif type(item) is Chunk:
                self._lines(session, item)
            else:
                session.add_report(item)

    def _report(self, session: Tracked, call: Call) -> None:
        """Take a report of a kind whose handlers have ended workers."""
        state = session.state()
        state.add_report(call.line)
        if self.poison.verdict(report_key(call.hook.wire, state)) == REFUSED:
            session_logger(session.id).error(
                "a handler of report %s has ended workers before: not called", call.hook.wire
            )
            session.add_history(call.line)
        else:
            session.add_report(call.line)

    def _request(self, session: Tracked, call: Call) -> None:
        worker, hook = session.worker, call.hook
        wait = worker.waits.get(hook) if worker is not None else None
        has_message = hook is _COMMIT and session.last_stream is not None
        if wait is None or session.stale or session.closed or self.poison.kinds or has_message:
            self._request_with_care(session, call)
            return
        # What nearly all requests are: half the cost of the way that looks at everything.
        owed = call.owed = wait[0]
        owed[call] = self._now + wait[1]
        session.owed = call
        worker.link.send(call.line + b"\n")

    def _request_with_care(self, session: Tracked, call: Call) -> None:
        if session.closed:
            return  # smtpd waits for nothing any more
        wire, worker = call.hook.wire, session.worker
        deadline = self._deadline(session, wire)
        self._guard.expect(call, deadline + _GRACE, self._now)
        if worker is not None and worker.hello is not None and wire in worker.hello.deadlines:
            worker.waits[call.hook] = (self._guard.group(deadline + _GRACE), deadline + _GRACE)
        stream = session.last_stream if call.hook is _COMMIT else None
        patient = self.quarantine.inside.get(session.sid)
        if patient is not None and stream is None and not session.stale:
            self.quarantine.release(session.sid, well=False)  # its message will not be committed
            patient, worker = None, session.worker
        if stream is not None and stream.outcome is not None:
            self._answer(call, PROCEED)  # the outcome wins
            self.quarantine.release(session.sid, well=False)
        elif worker is None or session.stale:
            self._answer(call, self._policy(session, wire))
        elif patient is None and wire in self.poison.kinds and self._is_suspected(session, call):
            pass
        else:
            session.owed = call
            worker.link.send(call.line + b"\n")

    def _is_suspected(self, session: Tracked, call: Call) -> bool:
        """Refuse a request, or have it tried in quarantine; give whether it is either."""
        wire, key = call.hook.wire, key_of(call)
        verdict = self.poison.verdict(key)
        if verdict == FREE:
            return False
        session.sort()
        if verdict == REFUSED:
            session_logger(session.id).error("%s has ended workers before: not tried again", wire)
            self._answer(call, self._policy(session, wire))
        elif session.overflowed:  # its state cannot be told to another worker
            self._answer(call, self._policy(session, wire))
        else:
            deadline, alone = self._deadline(session, wire), verdict == ALONE
            self.quarantine.enter(Patient(session, key, alone, deadline, call=call))
        return True

    def _treat(self, patient: Patient, worker: WorkerProcess) -> None:
        """Give the worker in quarantine what a patient is there for."""
        session, call, stream = patient.session, patient.call, patient.stream
        flow = flow_of(stream)
        if call is not None:
            session.owed = call
            worker.link.send(call.line + b"\n")
        elif stream is not None and flow is not None:
            flow.worker = worker
            self._release_held(stream, flow)

    def _go_home(self, session: Tracked) -> None:
        worker = self.connection.assign(session)
        if worker is not None:
            session.move_to(worker)

    def _deadline(self, session: Tracked, wire: str) -> float:
        hello = self._hello_of(session)
        return hello.deadlines.get(wire, _DEADLINE) if hello is not None else _DEADLINE

    def _lines(self, session: Tracked, chunk: Chunk) -> None:
        stream = chunk.stream
        flow: Flow | None = stream.consumer
        if flow is None:
            flow = stream.consumer = self._begin(session, stream)
        if not flow.header_ended:
            flow.note_header(chunk)
            if flow.suspected and flow.header_ended:
                self.poison.suspect([message_key(session.state(), flow.header)], alone=True)
        if flow.held is None:
            self._pass_lines(stream, flow, chunk)
            return
        flow.hold(chunk)
        if flow.header_ended:
            self._look_at_message(session, stream, flow, chunk.ended)

    def _look_at_message(self, session: Tracked, stream: Stream, flow: Flow, ended: bool) -> None:
        """Decide about a message that is held, now that its header is known."""
        too_long = flow.held_bytes > _MAX_HELD
        if not flow.waits:
            key = message_key(session.state(), flow.header)
            verdict = self.poison.verdict(key)
            if verdict == FREE:
                self._release_held(stream, flow)
                return
            if verdict == REFUSED or session.overflowed:
                session_logger(session.id).error("message has ended workers before: not tried")
                self._refuse_held(session, stream, flow)
                return
            if not (ended or too_long):
                return  # until it is whole: nobody is to wait for this client
            flow.waits, flow.worker = True, None
            deadline, alone = self._deadline(session, "commit"), verdict == ALONE
            self.quarantine.enter(Patient(session, key, alone, deadline, stream=stream))
        if too_long and flow.held is not None:
            self._refuse_held(session, stream, flow)

    def _refuse_held(self, session: Tracked, stream: Stream, flow: Flow) -> None:
        self._bypass(stream, flow, self._policy(session, "data-line"))
        self._release_held(stream, flow)

    def _release_held(self, stream: Stream, flow: Flow) -> None:
        held, flow.held = flow.held or [], None
        for chunk in held:
            self._pass_lines(stream, flow, chunk)

    def _begin(self, session: Tracked, stream: Stream) -> Flow:
        flow = Flow(None if session.stale else session.worker, stream)
        if flow.worker is None:
            self._bypass(stream, flow, self._policy(session, "data-line"))
        elif MESSAGE in self.poison.kinds:
            session.sort()
            flow.held = []
        return flow

    def _bypass(self, stream: Stream, flow: Flow, decision: Decision) -> None:
        """Have the lines go back to smtpd unchanged, and commit get a decision."""
        flow.worker = None
        try:
            self._guard.decide_commit(stream, decision)
        except DecisionError:
            self._guard.decide_commit(stream, TEMPFAIL)

    def _pass_lines(self, stream: Stream, flow: Flow, chunk: Chunk) -> None:
        if flow.worker is None:
            self._send(self._guard.data(stream, chunk.lines, chunk.ended))
        else:
            flow.worker.link.send(flow.to_worker(chunk))

    # Workers to smtpd

    def from_worker(self, worker: WorkerProcess, data: bytes) -> None:
        """Take a piece of a worker's output."""
        data = worker.tail + data
        if data.startswith(b"filter-dataline|"):
            whole, _, tail = data.rpartition(b"\n")
            head = whole[:_HEAD]
            run = whole[_HEAD:].split(b"\n" + head)
            if whole.count(b"\n") == len(run) - 1:  # nothing but lines of one message
                worker.tail = tail[:_MAX_LINE]
                self._write(worker, head, run)
                return
        lines = data.split(b"\n")
        worker.tail = lines.pop()[:_MAX_LINE]
        index, count = 0, len(lines)
        while index < count:
            line = lines[index]
            index += 1
            if line[:14] == b"filter-result|":
                if not self._proceed(worker, line):
                    self._result(worker, line)
            elif line.startswith(b"filter-dataline|"):
                index = self._data_lines(worker, lines, index - 1)
            elif line.startswith(_control.PREFIX):
                self._control(worker, line)
            else:
                self._tell_once("stray", f"worker wrote a line of its own: {redact(line)[:80]!r}")

    def _proceed(self, worker: WorkerProcess, line: bytes) -> bool:
        """Pass on what nearly all answers are; give whether this is one, as in `_request`."""
        session = worker.sessions.get(line[14:30])
        call = session.owed if session is not None else None
        if session is None or call is None or line[_RESULT:] != b"|proceed" or self.poison.kinds:
            return False
        if self.quarantine.inside or (call.hook is _COMMIT and session.last_stream is not None):
            return False
        session.owed = worker.mute = None
        answer = self._guard.proceed(call)
        if answer is not None:
            self._send(answer)
        return True

    def _session_of(self, worker: WorkerProcess, line: bytes) -> Tracked | None:
        # Which of the two ids comes first depends on the version of the protocol.
        _, first, second, _ = (*line.split(b"|", 3), b"", b"", b"")[:4]
        session: Any = worker.sessions.get(first) or worker.sessions.get(second)
        return session if session is not None and session.worker is worker else None

    def _result(self, worker: WorkerProcess, line: bytes) -> None:
        worker.mute = None
        session = self._session_of(worker, line)
        if session is None:  # it has ended, or another worker has it
            if worker is self.quarantine.worker:
                for sid in line.split(b"|", 3)[1:3]:
                    self.quarantine.release(sid, well=True)
            return
        call, session.owed = session.owed, None
        if call is None:
            session.stale = max(0, session.stale - 1)
            self._tell_once("late", "an answer came late and was dropped")
            self._leave(worker, session)
            return
        try:
            decision = _parse_decision(line.split(b"|", 3)[3])
        except (DecisionError, IndexError) as error:
            self._tell_once("answer", f"worker wrote an answer that is none{_reason(call, error)}")
            decision = self._policy(session, call.hook.wire)
        self._answer(call, decision)
        self._leave(worker, session)

    def _leave(self, worker: WorkerProcess, session: Tracked) -> None:
        """Have a session leave quarantine, where it has got its answer."""
        if worker is self.quarantine.worker and not session.stale:
            self.quarantine.release(session.sid, well=True)

    def _data_lines(self, worker: WorkerProcess, lines: list[bytes], index: int) -> int:
        """Pass on the run of data lines that begins at ``index``; give the index after it."""
        head = lines[index][:_HEAD]
        run = []
        for line in lines[index:]:
            if line[:_HEAD] != head:
                break
            run.append(line[_HEAD:])
        self._write(worker, head, run)
        return index + len(run)

    def _write(self, worker: WorkerProcess, head: bytes, run: list[bytes]) -> None:
        """Write lines of a worker's to the message that they belong to, if it is the worker's."""
        session = self._session_of(worker, head)
        stream = session.last_stream if session is not None else None
        flow = stream.consumer if stream is not None and stream.head == head else None
        if stream is not None and isinstance(flow, Flow) and flow.worker is worker:
            worker.mute = None
            ended = b"." in run
            if ended and session is not None and session.stream is stream:
                # smtpd would take a message for whole of which it has not sent the end yet.
                self._tell_once("dot", "worker ended a message before its end; refused")
                self._bypass(stream, flow, TEMPFAIL)
                return
            self._send(self._guard.data(stream, run[: run.index(b".")] if ended else run, ended))

    def _control(self, worker: WorkerProcess, line: bytes) -> None:
        worker.beat = self.clock()
        if line == _control.WORN_OUT.rstrip():
            self._on_worn_out(worker)
        elif line.startswith(_control.KEEP):
            fact = line.removeprefix(_control.KEEP)
            session: Any = self.connection.sessions.get(fact.split(b"|", 6)[5])
            if session is not None and session.worker is worker:
                session.keep_fact(fact)
            return
        # Before smtpd has said all, it would not survive the registration.
        if line.startswith(_control.HELLO) and self.connection.configured:
            try:
                hello = _control.parse_hello(line)
            except ValueError as error:
                self._tell_once("hello", f"worker {worker.pid}: {error}")
                return
            self._on_hello(worker, hello)

    # Answers that no worker gives

    def expire(self) -> None:
        """Answer by policy what waits past its deadline; its worker may be in a busy loop."""
        now = self.clock()
        self.poison.expire()
        self.look_at_reports()
        for patient in self.quarantine.late(now):
            flow = flow_of(patient.stream)
            if patient.stream is not None and flow is not None:
                self._refuse_held(patient.session, patient.stream, flow)
        if self.hello is not None:
            self.connection.max_sessions = self.hello.max_sessions
            if now >= self._next_round:
                self._forget_silent(self.hello, now)
        for call in self._guard.expired(now):
            session: Any = call.session
            if session.owed is call:
                session.owed = None
                session.stale += 1
                if session.sid not in self.quarantine.inside:  # where it may have come late
                    self._note_mute(session.worker)
            session_logger(session.id).error(
                "no answer from the worker to %s in time; answered by policy", call.hook.wire
            )
            self._answer(call, self._policy(session, call.hook.wire))

    def look_at_reports(self) -> None:
        """Have the parser hand over reports of the kinds whose handlers have ended workers."""
        if self._events == self.poison.kinds:
            return
        self._events = set(self.poison.kinds)
        events = [event.wire for event in EVENTS.values()]
        self.connection.deliver(
            (subsystem, wire)
            for wire in events
            if report_kind(wire) in self._events
            for subsystem in ("smtp-in", "smtp-out")
        )

    def _forget_silent(self, hello: Hello, now: float) -> None:
        """Let go the sessions of which smtpd has said nothing since the last round.

        Between two rounds smtpd would have ended them, and a request have met its deadline; but
        for those in whose transaction a message may be coming.
        """
        connection, longest = self.connection, max(hello.deadlines.values(), default=_DEADLINE)
        seconds = connection.config.smtp_session_timeout + longest + _GRACE
        self._next_round = now + seconds
        lost = connection.generation - LONGEST_MESSAGE // seconds
        sure = ("smtp-in", "tx-begin") in hello.reports
        sessions: list[Any] = list(connection.sessions.values())
        for session in sessions:
            if session.seen >= connection.generation or _smtpd_waits(session):
                continue
            if session.seen < lost or (sure and not session.in_transaction()):
                self._tell_once("silent", f"{session.id}: smtpd said nothing of it for long")
                connection.forget(session)
                self._on_close(session)
        connection.generation += 1

    def _note_mute(self, worker: WorkerProcess | None) -> None:
        if worker is not None and worker.mute is None:
            worker.mute = self.clock()

    def abandon(self, worker: WorkerProcess) -> int:
        """Answer all that a worker owed that is no more, and let go its sessions.

        Returns:
            The number of its sessions.
        """
        sessions = list(worker.sessions.values())
        worker.sessions.clear()
        for session in sessions:
            self._cut_off(session)
            call, session.owed = session.owed, None
            if call is not None:
                self._answer(call, self._policy(session, call.hook.wire))
            session.worker, session.stale = None, 0
        return len(sessions)

    def adopt(self, assign: Callable[[Tracked], WorkerProcess | None]) -> None:
        """Give sessions without a worker to one."""
        for session in list(self.connection.sessions.values()):
            if isinstance(session, Tracked) and session.worker is None:
                session.sort()
                worker = assign(session) if not session.overflowed else None
                if worker is not None:
                    session.move_to(worker)

    def _cut_off(self, session: Tracked) -> None:
        """Have a message that is in a worker's hands go to its end, and be refused."""
        stream = session.last_stream
        flow = stream.consumer if stream is not None else None
        if stream is None or not isinstance(flow, Flow) or flow.worker is None:
            return
        self._bypass(stream, flow, TEMPFAIL)
        self._release_held(stream, flow)
        if session.stream is not stream:  # its final dot has come already
            self._send(self._guard.data(stream, [], True))

    def _hello_of(self, session: Tracked) -> Hello | None:
        worker = session.worker
        return worker.hello if worker is not None and worker.hello is not None else self.hello

    def _policy(self, session: Tracked, wire: str) -> Decision:
        hello = self._hello_of(session)
        return hello.policy(wire) if hello is not None else TEMPFAIL

    def _answer(self, call: Call, decision: Decision) -> None:
        try:
            line = self._guard.answer(call, decision)
        except DecisionError as error:
            reason = _reason(call, error)
            self._tell_once(f"illegal at {call.hook.wire}", f"an answer was not legal{reason}")
            line = self._guard.answer(call, last_resort(call))
        if line is not None:
            self._send(line)

    def _on_close(self, session: Tracked) -> None:
        call, session.owed = session.owed, None
        if call is not None and call.owed is not None:
            call.owed.pop(call, None)  # smtpd waits for nothing any more
        if session.worker is not None:
            session.worker.sessions.pop(session.sid, None)
            session.worker.departed.append((session, call))
        patient = self.quarantine.inside.get(session.sid)
        if patient is not None and patient.call is None:
            self.quarantine.release(session.sid, well=False)

    def _on_evict(self, session: Tracked) -> None:
        self._tell_once("evict", f"{session.id}: too many sessions; let go")
        self._cut_off(session)
        call = session.owed
        if call is not None:
            self._answer(call, self._policy(session, call.hook.wire))
        self._on_close(session)

    def _on_problem(self, problem: ProtocolError) -> None:
        self._tell_once(str(problem), f"from smtpd: {problem}")

    def _tell_once(self, key: str, text: str) -> None:
        if key not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(key)
            logger.warning("%s (told once)", text)


def _smtpd_waits(session: Tracked) -> bool:
    """Whether a request has no answer yet, or a message that has come to its end."""
    stream = session.last_stream
    ended = stream is not None and session.stream is None
    return session.owed is not None or (ended and stream.open)  # type: ignore[union-attr]


def _reason(call: Call, error: Exception) -> str:
    return "" if carries_credentials(call) else f": {error}"


def _parse_decision(raw: bytes) -> Decision:
    if raw == b"proceed":
        return PROCEED
    kind, bar, value = raw.partition(b"|")
    if bar and not value:
        raise DecisionError(f"{raw!r} without its parameter")
    return Decision(kind.decode("ascii", "replace"), value.decode("utf-8", "surrogateescape"))
