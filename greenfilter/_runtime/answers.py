"""Turn decisions, errors and policies into answers, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from greenlet import GreenletExit

from .._filter.handlers import Handler, say_where_to_keep
from .._process.log import Once, find_origin, session_logger
from ..errors import (
    DecisionError,
    GreenfilterError,
    HandlerTimeout,
    MessageError,
    MessageTooBig,
    SessionClosed,
)
from ..protocol import PHASES, PROCEED, TEMPFAIL, Call, Decision, Guard, Stream, last_resort, reject
from ..protocol._credentials import carries_credentials, reveals

_AUTH = PHASES["auth"]


class Output(Protocol):
    """What is written to smtpd goes here."""

    def send(self, data: bytes) -> None:
        """Queue whole lines. For the hub's thread only; never switches greenlets."""

    def send_threadsafe(self, data: bytes) -> None:
        """Queue whole lines, from any thread."""

    def wait_room(self) -> None:
        """Wait while smtpd reads slower than we write. May switch greenlets."""

    def run_soon(self, fn: Callable[..., None], *args: Any) -> None:
        """Call a function in the loop, from any thread."""


class Answers:
    """Turns what handlers return or raise into answers, through the guard.

    Args:
        output: takes what is written to smtpd.

    Attributes:
        guard: makes the bytes.
        send, wait_room, run_soon: of the output.
        errors_of: the kinds of errors that each handler has failed with.
    """

    def __init__(self, output: Output) -> None:
        self.guard = Guard()
        self.send: Callable[[bytes], None] = output.send
        self.wait_room: Callable[[], None] = output.wait_room
        self.run_soon: Callable[..., None] = output.run_soon
        self._send_threadsafe: Callable[[bytes], None] = output.send_threadsafe
        self._once = Once()
        self.errors_of: dict[Handler, set[type[BaseException]]] = {}

    def answer(
        self, call: Any, decision: Any, handler: Handler | None, *, foreign: bool = False
    ) -> bool:
        """Answer a request with a decision, or by policy where that is not legal.

        Args:
            call: the request.
            decision: what the handler returned.
            handler: whose decision it is.
            foreign: the caller may be another thread than the hub's.

        Returns:
            Whether this was the answer; False if the request had been answered before.
        """
        send = self._send_threadsafe if foreign else self.send
        try:
            line = self.guard.answer(call, _checked(decision))
        except DecisionError as error:
            return self._fail(call, handler, error, send)
        if line is not None:
            send(line)
            if call.hook is _AUTH and decision.kind in ("reject", "disconnect"):
                self._tell_refused_auth(call, decision)
        elif decision is not PROCEED:
            self.tell_late(call, handler)
        return line is not None

    def _tell_refused_auth(self, call: Any, decision: Decision) -> None:
        """Log why AUTH was refused, which neither the client nor smtpd's own log is told."""
        hidden = reveals(call.line[call.body :], decision.value)
        shown = f"{decision.kind}(...)" if hidden else repr(decision)
        session_logger(call.session.id).info("AUTH refused, the client is told 501: %s", shown)

    def fail_message(
        self, call: Call, stream: Stream, handler: Handler, error: BaseException
    ) -> None:
        """Make commit apply the policy of a data handler that failed.

        A message that passes a limit will pass it the next time too: where the policy is to have
        it sent again, it is refused for good.
        """
        decision = handler.on_error
        if isinstance(error, MessageTooBig) and decision == TEMPFAIL:
            decision = reject(552, str(error), enhanced="5.3.4")
        try:
            self.guard.decide_commit(stream, decision)
        except DecisionError:
            decision = TEMPFAIL
            self.guard.decide_commit(stream, decision)
        self.log_failure(call, handler, error, f"commit will be answered {decision!r}")

    def lose_message(
        self, call: Call, stream: Stream, handler: Handler | None, error: MessageError
    ) -> None:
        """Make commit refuse a message that could not be kept whole, whatever the policy."""
        stream.outcome = None
        self.guard.decide_commit(stream, TEMPFAIL)
        self.log_failure(call, handler, error, f"commit will be answered {TEMPFAIL!r}")

    def decide_message(self, call: Call, stream: Stream, handler: Handler, decision: Any) -> None:
        """Keep what a data handler returned for commit; its policy where that is not legal."""
        try:
            self.guard.decide_commit(stream, _checked(decision))
        except DecisionError as error:
            self.fail_message(call, stream, handler, error)

    def fail(self, call: Any, handler: Handler | None, error: BaseException) -> None:
        """Answer by policy for a handler that raised or is late. In the hub's thread."""
        self._fail(call, handler, error, self.send)

    def _fail(
        self,
        call: Any,
        handler: Handler | None,
        error: BaseException,
        send: Callable[[bytes], None],
    ) -> bool:
        """Answer by policy, and then log why: a log of the author's may take its time.

        Returns:
            Whether this was the answer; False if the request had been answered before.
        """
        decision = handler.on_error if handler is not None else last_resort(call)
        try:
            line = self.guard.answer(call, decision)
        except DecisionError:
            decision = last_resort(call)
            line = self.guard.answer(call, decision)
        if line is not None:
            send(line)
            self.log_failure(call, handler, error, f"answered {decision!r}")
        elif not isinstance(error, (HandlerTimeout, SessionClosed, GreenletExit)):
            self.log_failure(call, handler, error, "its request had been answered by then")
        return line is not None

    def log_failure(
        self, call: Any, handler: Handler | None, error: BaseException, then: str
    ) -> None:
        if handler is not None:
            self.errors_of.setdefault(handler, set()).add(type(error))
        if type(error) is AttributeError:
            say_where_to_keep(error)
        log = session_logger(call.session.id)
        hidden = carries_credentials(call) and type(error) is not HandlerTimeout
        what = type(error).__name__ + ("" if hidden else f": {_text(error)}")
        if not isinstance(error, GreenfilterError):
            where = handler.where if handler is not None else None
            what += f" at {find_origin(error, where.rpartition(':')[0] if where else None)}"
        who = repr(handler) if handler is not None else call.hook.wire
        log.error("%s failed: %s%s", who, what, f"; {then}" if then else "")
        if not hidden:
            log.debug("traceback", exc_info=error)

    def tell_late(self, call: Any, handler: Handler | None) -> None:
        """Log, once for each handler, that an answer was dropped. From any thread."""
        name = repr(handler) if handler else call.hook.wire
        text = f"{name} answered a request that had been answered; dropped"
        self._once.warn(name, text, session=call.session.id)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "(its str() raises)"


def _checked(decision: Any) -> Decision:
    if type(decision) is not Decision:
        raise DecisionError(f"returned {type(decision).__name__}, which is not a decision")
    return decision
