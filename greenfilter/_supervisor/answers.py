"""Send smtpd every answer that does not pass unread, wherever its content comes from."""

from __future__ import annotations

from collections.abc import Callable

from .._control import Hello
from .._process.log import Once
from ..errors import DecisionError
from ..protocol import (
    PROCEED,
    TEMPFAIL,
    Call,
    Decision,
    Guard,
    Stream,
    last_resort,
    registration,
)
from ..protocol._credentials import carries_credentials
from .ledger import Ledger
from .message import Passage, passage_of
from .sessions import SupervisedSession

DEADLINE = 30.0
# The worker keeps its deadlines itself; the supervisor steps in this much later (seconds).
GRACE = 0.25


class Answers:
    """Knows which answers smtpd is owed, and sends them.

    Args:
        send: queues bytes for smtpd.

    Attributes:
        hello: of the filter that new sessions go to; None before the first has loaded.
        guard: what is legal, and until when each request can wait.
        ledger: which of the answers may pass unread.
        once: logs what may come again and again.
        reading_behind: what is dealt with now has passed unread: only what is still owed goes out.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self.send = send
        self.hello: Hello | None = None
        self.guard = Guard()
        self.ledger = Ledger()
        self.reading_behind = False
        self.once = Once(100)

    def register(self, hello: Hello) -> None:
        """Tell smtpd what the filter wants."""
        self.hello = hello
        reports = {*hello.reports, ("smtp-in", "link-disconnect")}
        self.send(registration(reports, hello.phases))

    def expect(self, session: SupervisedSession, call: Call, now: float) -> None:
        """Note that smtpd waits for the answer to a request."""
        deadline = self.deadline(session, call.hook.wire) + GRACE
        self.guard.expect(call, deadline, now)
        worker = session.worker
        hello = worker.hello if worker is not None else None
        if worker is not None and hello is not None and call.hook.wire in hello.deadlines:
            worker.waits[call.hook] = deadline

    def proceed(self, call: Call) -> None:
        """Answer a request other than commit with proceed."""
        line = self.guard.proceed(call)
        if line is not None and self._settle(call):
            self.send(line)

    def give(self, call: Call, decision: Decision) -> None:
        """Answer a request; what is not legal becomes what is."""
        try:
            line = self.guard.answer(call, decision)
        except DecisionError as error:
            reason = "" if carries_credentials(call) else f": {error}"
            self.once.warn(f"illegal at {call.hook.wire}", f"an answer was not legal{reason}")
            line = self.guard.answer(call, last_resort(call))
        if line is not None and self._settle(call):
            self.send(line)

    def give_policy(self, session: SupervisedSession, call: Call) -> None:
        """Answer a request that no worker answers."""
        self.give(call, self.policy(session, call.hook.wire))

    def forget(self, call: Call) -> None:
        """Note that smtpd does not wait for this answer any more."""
        self.guard.forget(call)
        self._settle(call)

    def _settle(self, call: Call) -> bool:
        """Cross a request out of the ledger; return whether its answer is still to be sent."""
        return self.ledger.settle(pair_of(call)) or not self.reading_behind

    def deadline(self, session: SupervisedSession, wire: str) -> float:
        """Return the seconds that a worker has for a request."""
        hello = self._hello_of(session)
        return hello.deadlines.get(wire, DEADLINE) if hello is not None else DEADLINE

    def policy(self, session: SupervisedSession, wire: str) -> Decision:
        """Return what answers a request if no worker does."""
        hello = self._hello_of(session)
        return hello.policy(wire) if hello is not None else TEMPFAIL

    def _hello_of(self, session: SupervisedSession) -> Hello | None:
        worker = session.worker
        return worker.hello if worker is not None and worker.hello is not None else self.hello

    # Messages

    def send_lines(self, stream: Stream, lines: list[bytes], ended: bool) -> None:
        """Send lines of a message, and with ``ended`` its final dot."""
        self.send(self.guard.data(stream, lines, ended))

    def bypass(self, stream: Stream, passage: Passage, decision: Decision) -> None:
        """Send the lines back to smtpd unchanged, and answer commit with a decision."""
        passage.worker = None
        try:
            self.guard.decide_commit(stream, decision)
        except DecisionError:
            self.guard.decide_commit(stream, TEMPFAIL)

    def pass_lines(self, stream: Stream, passage: Passage, lines: list[bytes], ended: bool) -> None:
        """Pass lines of smtpd's on, to the worker or back."""
        if passage.worker is None:
            self.send_lines(stream, lines, ended)
        else:
            passage.worker.link.send(passage.to_worker(lines, ended))

    def release_held(self, stream: Stream, passage: Passage) -> None:
        """Pass on the lines that were held."""
        held, passage.held = passage.held or [], None
        for chunk in held:
            self.pass_lines(stream, passage, chunk.lines, chunk.ended)

    def refuse_held(self, session: SupervisedSession, stream: Stream, passage: Passage) -> None:
        """Send a message that is held past the workers, with the policy as its answer."""
        self.bypass(stream, passage, self.policy(session, "data-line"))
        self.release_held(stream, passage)

    def cut_off(self, session: SupervisedSession) -> None:
        """Let a message that is in a worker's hands go to its end, and refuse it."""
        stream = session.last_stream
        passage = passage_of(stream)
        if stream is None or passage is None or passage.worker is None:
            return
        self.bypass(stream, passage, TEMPFAIL)
        self.release_held(stream, passage)
        if session.stream is not stream:  # its final dot has come already
            self.send_lines(stream, [], True)


def pair_of(call: Call) -> bytes:
    """Return what the ledger knows a request by."""
    return call.line[call.body - 34 : call.body - 1]


def parse_decision(raw: bytes) -> Decision:
    """Read a worker's answer.

    Raises:
        DecisionError: it cannot be one.
    """
    if raw == b"proceed":
        return PROCEED
    kind, bar, value = raw.partition(b"|")
    if bar and not value:
        raise DecisionError(f"{raw!r} without its parameter")
    return Decision(kind.decode("ascii", "replace"), value.decode("utf-8", "surrogateescape"))
