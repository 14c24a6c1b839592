"""Deals with what waits in the queue of a session: one event after the other."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._filter.context import DEFERRED, Context
from .._filter.handlers import Handler
from .._process.log import logger
from ..errors import HandlerTimeout, RemoteProtocolError
from ..protocol import EVENTS, PHASES, PROCEED, Call, Chunk, Decision, Event, Phase, Stream
from .backlog import Reports
from .calls import Calls
from .fast_requests import FastRequests
from .messages import begin_message
from .messages.consumer import Consumer
from .runners import Runner
from .sessions import LiveSession

_COMMIT = PHASES["commit"]
_DATA_LINE = PHASES["data_line"]
# State ends with these, so their handlers see it as it was.
_ENDINGS = ("transaction", "session")
# What ends a session that smtpd has not ended: it was forgotten, or smtpd itself has gone.
_SESSION_END = Event("session-end", (), ends="session")


class _ReportGivenUp(NamedTuple):
    """In a queue: a report whose handler was given up; what the report itself does is still due."""

    call: Call


class Dispatcher:
    """Handles the events of all sessions.

    Args:
        calls: calls the handlers.
    """

    def __init__(self, calls: Calls) -> None:
        self.app = calls.app
        self.calls = calls
        self.answers = calls.answers
        self._guard = calls.answers.guard
        self._storage = calls.storage
        self._filters: dict[Phase | Event, Handler] = {}
        self._reports: dict[tuple[bool, Phase | Event], Handler] = {}
        self._fast = FastRequests(calls)
        self.take_handlers()

    def take_handlers(self) -> None:
        """Take the filter's handlers as they are now; a chain may know some only at its start."""
        registry = self.calls.registry
        self._filters = {PHASES[name]: handler for name, handler in registry.filters.items()}
        self._reports = {
            (subsystem == "smtp-in", EVENTS[name]): handler
            for (subsystem, name), handler in registry.reports.items()
        }
        self._fast.take_handlers(self._filters)

    def work(self, runner: Runner, session: LiveSession) -> None:
        """Handle everything in a session's queue, in order. May switch greenlets."""
        queue, fast = session.queue, self._fast
        while queue:
            item = queue.popleft()
            if session.message is not None and _ends_message(item):
                self._end_message(session)
            if not fast.answer(runner, item):
                self._handle(runner, session, item)
            if runner.abandoned:
                return

    def _handle(self, runner: Runner, session: LiveSession, item: Any) -> None:
        """Handle one item of a session's queue. May switch greenlets."""
        if type(item) is bytes:
            session.add_report(item)
        elif type(item) is Chunk:
            if item.stream.open:
                self._take_lines(runner, session, item)
        elif type(item) is _ReportGivenUp:
            self._end_report(runner, session, item.call)
        elif type(item) is Reports:
            item.restore(session)
        elif item.token is None:
            self._report(runner, session, item)
        else:
            self._request(runner, session, item)

    def _take_lines(self, runner: Runner, session: LiveSession, chunk: Chunk) -> None:
        stream = chunk.stream
        consumer: Consumer | None = stream.consumer
        if consumer is None:
            self._end_message(session)
            consumer = stream.consumer = begin_message(self.calls, stream)
        session.message = None if chunk.ended else consumer
        consumer.take(runner, chunk)

    def _end_message(self, session: LiveSession) -> None:
        """End the message whose lines were coming in, if there is one."""
        if session.message is not None:
            self.end_stream(session.message.stream)
            session.message = None

    def _request(self, runner: Runner, session: LiveSession, call: Call) -> None:
        handler = self._filters.get(call.hook)
        if call.owed is None:
            self._guard.expect(call, self.deadline_of(call), self.calls.clock())
        elif not self._guard.is_owed(call):
            return  # answered at its deadline, while an earlier event held the session up
        message = call.committed
        if message is not None:
            consumer: Consumer | None = message.consumer
            if consumer is not None:
                for tap in consumer.taps:
                    tap.join(until_done=True)  # it may wait for its turn at max_concurrency
                if not self._guard.is_owed(call):
                    return  # answered at its deadline
        if handler is None or (message is not None and message.outcome is not None):
            self.answers.answer(call, PROCEED, handler)
            return
        try:
            decision = self.calls.call(
                runner, handler, call, handler.fn, Context(call), *call.values()
            )
        except BaseException as error:
            self.answers.fail(call, handler, error)
            return
        if decision is not DEFERRED:
            self.answers.answer(call, PROCEED if decision is None else decision, handler)

    def _report(self, runner: Runner, session: LiveSession, call: Call) -> None:
        wire = call.hook.wire
        if wire == "tx-begin" and self._storage.used:
            self._storage.end_message(runner, call)
        if _ends(call) not in _ENDINGS:
            session.add_report(call.line)
        handler = self._reports.get((session.incoming, call.hook))
        if handler is None:
            if self._storage.used:
                self._storage.begin(runner, call)
        else:
            try:
                self.calls.call(runner, handler, call, handler.fn, Context(call), *call.values())
            except RemoteProtocolError as problem:
                logger.warning("skipped a report: %s", problem)
            except BaseException as error:
                if runner.abandoned:
                    return
                self.answers.log_failure(call, handler, error, "")
            runner.give_turn()
        self._end_report(runner, session, call)

    def _end_report(self, runner: Runner, session: LiveSession, call: Call) -> None:
        ends = _ends(call)
        if ends == "transaction":
            self._storage.end_message(runner, call)
            session.add_report(call.line)
        elif ends == "session":
            self._end_session(runner, session, call)

    def take_over(self, session: LiveSession, runner: Runner) -> None:
        """Make a session ready to go on without a runner that does not end. In the hub."""
        if runner.running.hook.startswith("report."):
            session.queue.appendleft(_ReportGivenUp(runner.call))
        self.spoil_message(session)
        session.runner = None
        session.queued = True

    def spoil_message(self, session: LiveSession) -> None:
        """Refuse the message that a session is at: what was done with it cannot be trusted."""
        stream = session.last_stream
        if stream is not None and stream.open and stream.consumer is not None:
            stream.consumer.spoil()

    def _end_session(self, runner: Runner, session: LiveSession, call: Call) -> None:
        """End a session: its message is given up, its delete hooks run."""
        if session.last_stream is not None:
            self.end_stream(session.last_stream)
        self._storage.end_message(runner, call)
        self._storage.end_session(runner, call)

    def abandon_session(self, session: LiveSession) -> None:
        """End a session that smtpd has not ended, behind what its queue holds. In the hub."""
        session.closed = True
        line = b"report|0.7|0|smtp-in|session-end|%b" % session.sid
        session.queue.append(Call(session, _SESSION_END, line, 0))
        if not session.queued:
            session.queued = True
            self.calls.runners.start(session)

    def deadline_of(self, call: Call) -> float:
        """Return the seconds that smtpd may have to wait for the answer to a request."""
        if call.hook is _COMMIT:
            return self.calls.registry.commit_deadline()
        handler = self._filters.get(call.hook)
        return handler.deadline if handler is not None else self.app.deadline

    def end_stream(self, stream: Stream) -> None:
        """End a message: nothing more is written of it, and what it holds is freed."""
        stream.open = False
        if stream.consumer is not None:
            stream.consumer.close()

    def reply(self, call: Any, decision: Decision | None) -> bool:
        """Answer a request from any greenlet or thread (``ctx.reply``)."""
        handler = self._filters.get(call.hook)
        decision = PROCEED if decision is None else decision
        if not self._guard.is_owed(call):
            if decision is not PROCEED:
                self.answers.tell_late(call, handler)
            return False
        return self.answers.answer(call, decision, handler, foreign=True)

    def expire(self, call: Any) -> None:
        """Answer by policy a request that has passed its deadline. In the hub."""
        stream = call.session.last_stream
        consumer: Consumer | None = stream.consumer if stream is not None else None
        if call.hook is _DATA_LINE:  # a raw_line handler owes the end of its message
            if consumer is None or not consumer.expire(call):
                self._guard.forget(call)  # smtpd has gone on without it
            return
        handler = self._filters.get(call.hook)
        waits_for_taps = consumer is not None and call.hook is _COMMIT and consumer.expire_taps()
        if waits_for_taps and handler is None:
            self.answers.answer(call, PROCEED, None)  # or what a tap's policy has decided
            return
        error = HandlerTimeout(f"no answer within {self.deadline_of(call):g} s")
        self.answers.fail(call, handler, error)


def _ends_message(item: Any) -> bool:
    """Return whether an item of the queue means that no more lines of the message will come."""
    if not isinstance(item, Call):
        return False
    return isinstance(item.hook, Phase) or bool(_ends(item))


def _ends(call: Call) -> str:
    """Return what a report ends, as the catalogue says."""
    return call.hook.ends if isinstance(call.hook, Event) else ""
