"""Lines between smtpd and the workers, each checked in both directions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _control
from .._control import Hello
from .._log import logger, session_logger
from ..errors import DecisionError, ProtocolError
from ..protocol import PHASES, PROCEED, TEMPFAIL, Call, Chunk, Connection, Decision, Guard, Stream
from ._poison import Key, Poison, envelope_key, message_key, request_key
from ._tracked import Tracked

if TYPE_CHECKING:
    from ._process import WorkerProcess

_COMMIT = PHASES["commit"]
# The worker keeps its deadlines itself; the supervisor steps in this much later (seconds).
_GRACE = 0.25
_MAX_HEADER_LINES = 500
_MAX_LINE = 1 << 20


class Flow:
    """What becomes of the lines of one message.

    Attributes:
        worker: who gets them; None: they go back to smtpd unchanged.
        prefix: what each line begins with on its way to the worker.
        header: the first lines, to know the message again by.
        held: chunks that wait until the header is known, because the message is suspected.
    """

    __slots__ = ("header", "header_ended", "held", "prefix", "worker")

    def __init__(self, worker: WorkerProcess | None, stream: Stream) -> None:
        self.worker = worker
        self.prefix = b"|".join(stream.line.split(b"|", 7)[:7]) + b"|"
        self.header: list[bytes] = []
        self.header_ended = False
        self.held: list[Chunk] | None = None

    def note_header(self, chunk: Chunk) -> None:
        """Keep the lines of the header."""
        for line in chunk.lines:
            if not line or len(self.header) >= _MAX_HEADER_LINES:
                self.header_ended = True
                return
            self.header.append(line)
        self.header_ended = chunk.ended


class Router:
    """Passes lines on, answers what a worker cannot.

    Args:
        send: queues bytes for smtpd.
        assign: gives the worker for a new session, or None.
        on_close: is told of each session that has ended.
        on_hello: is told what a worker's filter registers.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        assign: Callable[[Tracked], WorkerProcess | None],
        on_close: Callable[[Tracked], None],
        on_hello: Callable[[WorkerProcess, Hello], None],
    ) -> None:
        self.hello: Hello | None = None
        self.clock = time.monotonic
        self._send = send
        self._on_hello = on_hello
        self._guard = Guard()
        self._poison = Poison(self.clock)
        self._told: set[str] = set()
        bound = type("BoundTracked", (Tracked,), {"__slots__": (), "assign": staticmethod(assign)})
        self.connection = Connection(
            session_type=bound,
            on_problem=self._on_problem,
            on_close=on_close,  # type: ignore[arg-type]
            on_evict=on_close,  # type: ignore[arg-type]
        )

    # smtpd to workers

    def from_smtpd(self, data: bytes) -> None:
        """Take a piece of smtpd's output."""
        for session in self.connection.receive(data):
            queue = session.queue
            while queue:
                item = queue.popleft()
                if type(item) is Call:
                    self._request(session, item)  # type: ignore[arg-type]
                elif type(item) is Chunk:
                    self._lines(session, item)  # type: ignore[arg-type]
                else:
                    session.add_report(item)  # type: ignore[arg-type]
            session.queued = False

    def _request(self, session: Tracked, call: Call) -> None:
        hello, wire = self.hello, call.hook.wire
        deadline = hello.deadlines.get(wire, 30.0) if hello is not None else 30.0
        self._guard.expect(call, deadline + _GRACE, self.clock())
        stream = session.last_stream if call.hook is _COMMIT else None
        if stream is not None and stream.outcome is not None:
            self._answer(call, PROCEED)  # the outcome wins
        elif session.worker is None or session.overflowed or session.stale:
            self._answer(call, self._policy(wire))
        elif self._poison.knows(_key(call)):
            session_logger(session.id).error("%s has ended workers before: not tried again", wire)
            self._answer(call, self._policy(wire))
        else:
            session.owed = call
            session.worker.link.send(call.line + b"\n")

    def _lines(self, session: Tracked, chunk: Chunk) -> None:
        stream = chunk.stream
        flow: Flow | None = stream.consumer
        if flow is None:
            flow = stream.consumer = self._begin(session, stream)
        if not flow.header_ended:
            flow.note_header(chunk)
        if flow.held is not None:
            flow.held.append(chunk)
            if not flow.header_ended:
                return
            chunks, flow.held = flow.held, None
            if self._poison.knows(message_key(session, flow.header)):
                session_logger(session.id).error("message has ended workers before: not tried")
                self._bypass(stream, flow, self._policy("data-line"))
        else:
            chunks = [chunk]
        for piece in chunks:
            self._pass_lines(stream, flow, piece)

    def _begin(self, session: Tracked, stream: Stream) -> Flow:
        usable = session.worker is not None and not session.stale and not session.overflowed
        flow = Flow(session.worker if usable else None, stream)
        if flow.worker is None:
            self._bypass(stream, flow, self._policy("data-line"))
        elif self._poison.suspects(envelope_key(session)):
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
            return
        prefix = flow.prefix
        out = b""
        if chunk.lines:
            out = prefix + (b"\n" + prefix).join(chunk.lines) + b"\n"
        if chunk.ended:
            out += prefix + b".\n"
        flow.worker.link.send(out)

    # Workers to smtpd

    def from_worker(self, worker: WorkerProcess, data: bytes) -> None:
        """Take a piece of a worker's output."""
        lines = (worker.tail + data).split(b"\n")
        worker.tail = lines.pop()[:_MAX_LINE]
        index, count = 0, len(lines)
        while index < count:
            line = lines[index]
            if line.startswith(b"filter-dataline|"):
                index = self._data_lines(worker, lines, index)
                continue
            index += 1
            if line.startswith(b"filter-result|"):
                self._result(worker, line)
            elif line.startswith(_control.PREFIX):
                self._control(worker, line)
            else:
                self._tell_once(f"worker {worker.pid} wrote a line of its own: {line[:80]!r}")

    def _session_of(self, worker: WorkerProcess, line: bytes) -> Tracked | None:
        # Which of the two ids comes first depends on the version of the protocol.
        _, first, second, _ = (*line.split(b"|", 3), b"", b"", b"")[:4]
        session: Any = worker.sessions.get(first) or worker.sessions.get(second)
        return session if session is not None and session.worker is worker else None

    def _result(self, worker: WorkerProcess, line: bytes) -> None:
        session = self._session_of(worker, line)
        if session is None:
            return  # it has ended, or another worker has it
        call, session.owed = session.owed, None
        if call is None:
            session.stale = max(0, session.stale - 1)
            return
        try:
            decision = _parse_decision(line.split(b"|", 3)[3])
        except (DecisionError, IndexError) as error:
            self._tell_once(f"worker {worker.pid} wrote an answer that is none: {error}")
            decision = self._policy(call.hook.wire)
        self._answer(call, decision)

    def _data_lines(self, worker: WorkerProcess, lines: list[bytes], index: int) -> int:
        """Pass on the run of data lines that begins at ``index``; give the index after it."""
        session = self._session_of(worker, lines[index])
        stream = session.last_stream if session is not None else None
        if stream is None or not lines[index].startswith(stream.head):
            return index + 1
        head, start = stream.head, len(stream.head)
        run = [lines[index][start:]]
        for line in lines[index + 1 :]:
            if line[:start] != head:
                break
            run.append(line[start:])
        index += len(run)
        flow = stream.consumer
        if isinstance(flow, Flow) and flow.worker is worker:
            ended = b"." in run
            if ended:
                del run[run.index(b".") :]
            self._send(self._guard.data(stream, run, ended))
        return index

    def _control(self, worker: WorkerProcess, line: bytes) -> None:
        if line.startswith(_control.PREFIX + b"hello|"):
            try:
                hello = _control.parse_hello(line)
            except ValueError as error:
                self._tell_once(f"worker {worker.pid}: {error}")
                return
            self._on_hello(worker, hello)
        worker.beat = self.clock()

    # Answers that no worker gives

    def expire(self) -> None:
        """Answer by policy what waits past its deadline; its worker may be in a busy loop."""
        for call in self._guard.expired(self.clock()):
            session: Any = call.session
            if session.owed is call:
                session.owed = None
                session.stale += 1
            logger.error(
                "%s: no answer from the worker to %s in time; answered by policy",
                session.id,
                call.hook.wire,
            )
            self._answer(call, self._policy(call.hook.wire))

    def abandon(self, worker: WorkerProcess) -> list[Tracked]:
        """Answer all that a dead worker owed, and give its sessions."""
        sessions = list(worker.sessions.values())
        worker.sessions.clear()
        self._blame(worker, [s for s in sessions if self._in_hand(s)])
        for session in sessions:
            session.worker, session.stale = None, 0
            stream = session.last_stream
            if stream is not None and stream.open and isinstance(stream.consumer, Flow):
                self._cut_off(session, stream, stream.consumer)
            elif stream is not None and isinstance(stream.consumer, Flow):
                # Its lines are out, but what the worker had in mind for commit is lost.
                self._bypass(stream, stream.consumer, TEMPFAIL)
            call, session.owed = session.owed, None
            if call is not None:
                self._answer(call, self._policy(call.hook.wire))
        return sessions

    def _in_hand(self, session: Tracked) -> bool:
        stream = session.last_stream
        flow = stream.consumer if stream is not None and stream.open else None
        return session.owed is not None or (isinstance(flow, Flow) and flow.worker is not None)

    def _cut_off(self, session: Tracked, stream: Stream, flow: Flow) -> None:
        """A message was half through: it goes to its end, and is refused."""
        if flow.worker is None:
            return
        self._bypass(stream, flow, TEMPFAIL)
        held, flow.held = flow.held or [], None
        for chunk in held:
            self._pass_lines(stream, flow, chunk)
        if session.stream is not stream:  # its final dot has come already
            self._send(self._guard.data(stream, [], True))

    def _blame(self, worker: WorkerProcess, suspects: list[Tracked]) -> None:
        marked = worker.marked()
        culprits = [session for session in suspects if session.sid == marked] or suspects
        for session in culprits:
            stream = session.last_stream
            if session.owed is not None:
                key = _key(session.owed)
            elif stream is not None and isinstance(stream.consumer, Flow):
                self._poison.blame(envelope_key(session))
                key = message_key(session, stream.consumer.header)
            else:
                continue
            deaths = self._poison.blame(key)
            session_logger(session.id).error(
                "worker %d ended in the hands of %s (%d times)", worker.pid, key[0], deaths
            )

    def replay(self, session: Tracked, worker: WorkerProcess) -> None:
        """Give a session to another worker, with what is known of it."""
        session.worker = worker
        worker.sessions[session.sid] = session
        replay = _control.PREFIX + b"replay|"
        worker.link.send(b"".join(replay + line + b"\n" for line in session.kept))

    def _policy(self, wire: str) -> Decision:
        return self.hello.policy(wire) if self.hello is not None else TEMPFAIL

    def _answer(self, call: Call, decision: Decision) -> None:
        try:
            line = self._guard.answer(call, decision)
        except DecisionError as error:
            self._tell_once(f"an answer was not legal: {error}")
            line = self._guard.answer(call, TEMPFAIL)
        if line is not None:
            self._send(line)

    def _on_problem(self, problem: ProtocolError) -> None:
        self._tell_once(f"from smtpd: {problem}")

    def _tell_once(self, text: str) -> None:
        if text not in self._told and len(self._told) < 100:
            self._told.add(text)
            logger.warning("%s", text)


def _key(call: Call) -> Key:
    stream = call.session.last_stream if call.hook is _COMMIT else None
    flow = stream.consumer if stream is not None else None
    return request_key(call, flow.header if isinstance(flow, Flow) else None)


def _parse_decision(raw: bytes) -> Decision:
    if raw == b"proceed":
        return PROCEED
    kind, bar, value = raw.partition(b"|")
    if bar and not value:
        raise DecisionError(f"{raw!r} without its parameter")
    return Decision(kind.decode("ascii", "replace"), value.decode("utf-8", "surrogateescape"))
