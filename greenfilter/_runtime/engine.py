"""Runs handlers: one event after the other within a session.

It knows nothing of sockets: what is to be written goes to ``send``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from greenlet import GreenletExit

from .._filter.context import DEFERRED, Context
from .._filter.handlers import Handler
from .._process.log import logger
from .._process.mark import SID_BYTES, free_slots
from ..errors import HandlerTimeout, RemoteProtocolError
from ..protocol import EVENTS, PHASES, PROCEED, Chunk, Decision, Event, Phase, Stream, text
from .answers import Answers
from .backlog import Reports
from .consumers import Consumer
from .kinds import consumer_for
from .moved import Moved
from .session import LiveSession
from .storage import Storage
from .threads import Threads

if TYPE_CHECKING:
    from .._filter.app import Filter
    from .workers import Worker

_COMMIT = PHASES["commit"]
_DATA_LINE = PHASES["data_line"]
# State ends with these, so their handlers see it as it was.
_ENDINGS = ("tx-reset", "link-disconnect", "session-end")
# What ends a session that smtpd has not ended: it was forgotten, or smtpd itself has gone.
_SESSION_END = Event("session-end", ())


class _Told(NamedTuple):
    """In a queue: a report whose handler was given up; what the report itself does is still due."""

    call: Context


class _Plain:
    """A filter handler that nothing special is asked of, with all that a request needs of it."""

    __slots__ = ("deadline", "fn", "handler", "owed", "texts")

    def __init__(self, handler: Handler, phase: Phase, owed: dict[Any, float]) -> None:
        self.handler = handler
        self.fn = handler.fn
        self.deadline = handler.deadline
        self.owed = owed
        kinds = [field.kind for field in phase.fields]
        self.texts = len(kinds) if set(kinds) <= {"text"} else 2


class Engine:
    """Runs the handlers of one filter.

    Args:
        app: the filter.
        send: queues whole lines for smtpd.
        send_threadsafe: the same, from any thread.
        run_soon: has a function called in the loop, from any thread.
        wait_room: waits while smtpd reads slower than we write.
        park: waits, with what it is given, for more lines of a message, or for a tap.
        start_task: has a task done by a worker.
        page: where to leave which report's handler runs (``_process/mark.py``), or None.
        clock: gives the time (monotonic seconds).
    """

    def __init__(
        self,
        app: Filter,
        send: Callable[[bytes], None],
        send_threadsafe: Callable[[bytes], None],
        run_soon: Callable[..., None],
        wait_room: Callable[[], None],
        park: Callable[[Callable[[], Any]], None],
        start_task: Callable[[Any], None],
        page: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.answers = Answers(send, send_threadsafe)
        self.run_soon = run_soon
        self.guard = self.answers.guard
        self.send = send
        self.wait_room = wait_room
        self.park = park
        self.start_task = start_task
        self.page = page
        self.clock = clock
        self.now = self.clock()  # of the last input or tick
        slots = free_slots(page)
        self.threads = Threads(app.threads, page, slots)
        self.moved = Moved(
            Threads(1, page, slots), self.answers.errors_of, self._start_moved, self._end_moved
        )
        self._filters: dict[Phase | Event, Handler] = {
            PHASES[name]: handler for name, handler in app.filters.items()
        }
        self._reports: dict[tuple[bool, Phase | Event], Handler] = {
            (subsystem == "smtp-in", EVENTS[name]): handler
            for (subsystem, name), handler in app.reports.items()
        }
        self._storage = Storage(app, self.clock)
        self._plain = {} if self._storage.used else self._find_plain()

    def _start_moved(self, handler: Handler) -> None:
        """Have the requests of a handler no longer dealt with on the short way."""
        for phase, short in list(self._plain.items()):
            if short.handler is handler:
                del self._plain[phase]

    def _end_moved(self, handler: Handler) -> None:
        if not self._storage.used:
            self._plain.update(
                (phase, short)
                for phase, short in self._find_plain().items()
                if short.handler is handler
            )

    # What a worker does with one item of a session's queue

    def _find_plain(self) -> dict[Phase | Event, _Plain]:
        """Give the handlers whose requests can be answered on the short way."""
        has_messages = bool(self.app.data or self.app.taps)
        return {
            phase: _Plain(handler, phase, self.guard.group(handler.deadline))
            for phase, handler in self._filters.items()
            if isinstance(phase, Phase)
            and not handler.thread
            and not (phase is _COMMIT and has_messages)
        }

    def work_off(self, worker: Worker, session: LiveSession) -> None:
        """Deal with everything in a session's queue, in order. May switch greenlets.

        A request that asks for nothing special is dealt with right here, at half the cost of
        :meth:`handle`, which does the same for all.
        """
        queue, plain, guard = session.queue, self._plain, self.guard
        while queue:
            item = queue.popleft()
            if (
                not isinstance(item, Context)
                or item.owed is not None
                or (short := plain.get(item.hook)) is None
            ):
                self.handle(worker, session, item)
                if worker.abandoned:
                    return
                continue
            owed = item.owed = short.owed
            owed[item] = self.now + short.deadline
            worker.running, worker.since, worker.warned = short.handler, self.now, 0
            try:
                if short.texts == 1:
                    decision = short.fn(item, text(item.line[item.body :]))
                elif short.texts == 0:
                    decision = short.fn(item)
                else:
                    decision = short.fn(item, *item.values())
            except BaseException as error:
                worker.running = None
                self.answers.fail(item, short.handler, error)
            else:
                worker.running = None
                if decision is None:
                    line = guard.proceed(item)
                    if line is not None:
                        self.send(line)
                elif decision is not DEFERRED:
                    self.answers.answer(item, decision, short.handler)
            if worker.turn.missed:
                worker.give_turn()
            if worker.abandoned:
                return

    def handle(self, worker: Worker, session: LiveSession, item: Any) -> None:
        """Deal with one item of a session's queue. May switch greenlets."""
        if type(item) is bytes:
            session.add_report(item)
        elif type(item) is Chunk:
            if item.stream.open:
                self._lines(worker, item)
        elif type(item) is _Told:
            self._end_report(worker, session, item.call)
        elif type(item) is Reports:
            item.restore(session)
        elif item.token is None:
            self._report(worker, session, item)
        else:
            self._request(worker, session, item)

    def _lines(self, worker: Worker, chunk: Chunk) -> None:
        stream = chunk.stream
        consumer: Consumer | None = stream.consumer
        if consumer is None:
            consumer = stream.consumer = consumer_for(self, stream)
        consumer.take(worker, chunk)

    def _request(self, worker: Worker, session: LiveSession, call: Context) -> None:
        handler = self._filters.get(call.hook)
        if call.owed is None:
            self.guard.expect(call, self.deadline_of(call), self.clock())
        elif not self.guard.is_owed(call):
            return  # answered at its deadline, while an earlier event held the session up
        if call.hook is _COMMIT and session.last_stream is not None:
            consumer: Consumer | None = session.last_stream.consumer
            if consumer is not None:
                if not consumer.ended:  # never so with smtpd
                    consumer.close()
                for tap in consumer.taps:
                    self.park(tap.join)  # which may wait for its turn at max_concurrency
                if not self.guard.is_owed(call):
                    return  # answered at its deadline
        if handler is None or (call.hook is _COMMIT and self._is_decided(session)):
            self.answers.answer(call, PROCEED, handler)
            return
        try:
            decision = self.call(worker, handler, call, handler.fn, call, *call.values())
        except BaseException as error:
            self.answers.fail(call, handler, error)
            return
        if decision is not DEFERRED:
            self.answers.answer(call, PROCEED if decision is None else decision, handler)

    def _is_decided(self, session: LiveSession) -> bool:
        return session.last_stream is not None and session.last_stream.outcome is not None

    def _report(self, worker: Worker, session: LiveSession, call: Context) -> None:
        wire = call.hook.wire
        if wire == "tx-begin" and self._storage.used:
            self._storage.end_message(worker, call)
        if wire not in _ENDINGS:
            session.add_report(call.line)
        handler = self._reports.get((session.incoming, call.hook))
        if handler is None:
            if self._storage.used:
                self._storage.begin(worker, call)
        else:
            try:
                self.call(worker, handler, call, handler.fn, call, *call.values())
            except RemoteProtocolError as problem:
                logger.warning("skipped a report: %s", problem)
            except BaseException as error:
                if worker.abandoned:
                    return
                self.answers.log_failure(call, handler, error, "")
            worker.give_turn()
        self._end_report(worker, session, call)

    def _end_report(self, worker: Worker, session: LiveSession, call: Context) -> None:
        if call.hook.wire == "tx-reset":
            self._storage.end_message(worker, call)
            session.add_report(call.line)
        elif call.hook.wire in _ENDINGS:
            self._end_session(worker, session, call)

    def call(
        self, worker: Worker, handler: Handler, ctx: Context, fn: Callable[..., Any], *args: Any
    ) -> Any:
        """Call the author's code with its deadline running, here or in the thread pool.

        Args:
            worker: the greenlet that this runs in.
            handler: whose deadline and options hold.
            ctx: the event that it is called for.
            fn: what to call.
            args: its arguments.

        Raises:
            BaseException: whatever it raises.
        """
        if self._storage.used:
            self._storage.begin(worker, ctx)
        outer, worker.call = worker.running, ctx
        worker.begin(handler, self.clock())
        if handler.report and self.page is not None:
            self.page[SID_BYTES] = handler.report
        try:
            if handler.thread:
                return self.threads.call(ctx.session.sid, handler.report, fn, *args)
            if handler in self.moved.handlers:
                return self.moved.call(ctx.session.sid, handler, fn, *args)
            return fn(*args)
        finally:
            if handler.report and self.page is not None:
                self.page[SID_BYTES] = 0
            worker.begin(outer, self.clock())
            if worker.abandoned:
                raise GreenletExit  # its session has gone on without it

    def is_threaded(self, handler: Handler) -> bool:
        """Tell whether a handler's next call will be made in another thread."""
        return handler.thread or handler in self.moved.handlers

    @contextmanager
    def unhurried(self, worker: Worker) -> Iterator[None]:
        """Stop the deadline while the author's code waits for smtpd or for the client."""
        running, worker.running = worker.running, None
        used = self.clock() - worker.since
        try:
            yield
        finally:
            worker.begin(running, self.clock() - used)

    def make_room(self, worker: Worker) -> None:
        """Wait for room in the middle of the author's code, which does not end by itself perhaps.

        Raises:
            HandlerTimeout: it has written for longer than its deadline.
            GreenletExit: its session has gone on without it.
        """
        with self.unhurried(worker):
            self.wait_room()
        if worker.abandoned:
            raise GreenletExit
        if self.clock() - worker.since > worker.running.deadline:
            raise HandlerTimeout(f"{worker.running!r} passed its {worker.running.deadline:g} s")

    def take_over(self, session: LiveSession, worker: Worker) -> None:
        """Make a session ready to go on without a worker that does not end. In the hub."""
        if worker.running.hook.startswith("report."):
            session.queue.appendleft(_Told(worker.call))
        self.spoil_message(session)
        session.worker = None
        session.queued = True

    def spoil_message(self, session: LiveSession) -> None:
        """Refuse the message that a session is at: what was done with it cannot be trusted."""
        stream = session.last_stream
        if stream is not None and stream.open and stream.consumer is not None:
            stream.consumer.spoil()

    def _end_session(self, worker: Worker, session: LiveSession, call: Context) -> None:
        """Let a session go: its message is given up, its delete hooks run."""
        if session.last_stream is not None:
            self.end_stream(session.last_stream)
        self._storage.end_message(worker, call)
        self._storage.end_session(worker, call)

    def abandon_session(self, session: LiveSession) -> None:
        """End a session that smtpd has not ended, behind what its queue holds. In the hub."""
        session.closed = True
        line = b"report|0.7|0|smtp-in|session-end|%b" % session.sid
        session.queue.append(Context(session, _SESSION_END, line, 0))
        if not session.queued:
            session.queued = True
            self.start_task(session)

    def deadline_of(self, call: Context) -> float:
        """Give the seconds that smtpd may have to wait for the answer to a request."""
        handler = self._filters.get(call.hook)
        deadline = handler.deadline if handler is not None else self.app.deadline
        if call.hook is _COMMIT:  # which waits for the taps
            return max([deadline, *(tap.deadline for tap in self.app.taps)])
        return deadline

    def end_stream(self, stream: Stream) -> None:
        """Give up a message: nothing more is written of it, and what it holds is freed."""
        stream.open = False
        if stream.consumer is not None:
            stream.consumer.close()

    def context(self, stream: Stream) -> Context:
        """Make the context of a data handler."""
        return Context(stream.session, PHASES["data_line"], stream.line, 0)

    def reply(self, call: Any, decision: Decision | None) -> bool:
        """Answer a request from any greenlet or thread (``ctx.reply``)."""
        handler = self._filters.get(call.hook)
        decision = PROCEED if decision is None else decision
        if not self.guard.is_owed(call):
            if decision is not PROCEED:
                self.answers.tell_late(call, handler)
            return False
        return self.answers.answer(call, decision, handler, foreign=True)

    def expire(self, call: Any) -> None:
        """Answer by policy a request that has passed its deadline. In the hub."""
        if call.hook is _DATA_LINE:  # a raw_line handler owes the end of its message
            stream = call.session.last_stream
            consumer = stream.consumer if stream is not None else None
            if consumer is not None and consumer.ctx is call:
                consumer.expire()
            else:  # smtpd has gone on without it
                call.owed.pop(call, None)
            return
        handler = self._filters.get(call.hook)
        if call.hook is _COMMIT and self._expire_taps(call.session) and handler is None:
            self.answers.answer(call, PROCEED, None)  # or what a tap's policy has decided
            return
        error = HandlerTimeout(f"no answer within {self.deadline_of(call):g} s")
        self.answers.fail(call, handler, error)

    def _expire_taps(self, session: Any) -> bool:
        """Have the taps that commit waits for in vain apply their policy; give whether any does."""
        stream = session.last_stream
        consumer: Consumer | None = stream.consumer if stream is not None else None
        return consumer is not None and any([tap.expire() for tap in consumer.taps])
