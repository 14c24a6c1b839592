"""Deadlines, queues that grow, and sessions that smtpd forgot: looked after ten times a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import gevent
from cachetools import TTLCache
from greenlet import GreenletExit

from .._process.log import Once, logger
from ..errors import HandlerTimeout
from ..protocol import LONGEST_MESSAGE, Call, Connection
from .backlog import shrink
from .dispatcher import Dispatcher
from .messages.reader import Reader
from .runners import Runner, Runners
from .sessions import LiveSession

_TICK = 0.1
# A handler that swallows its HandlerTimeout is asked again after this many seconds.
_INSIST = 1.0
# With this many events in memory, since no spool has room for them, nothing is read: some 50 MB.
_MAX_QUEUED = 100_000
# Sessions looked at in one tick, so that 100,000 of them stall nobody (3 us each).
_SESSIONS_PER_TICK = 1000


class Housekeeper:
    """Ends what is late, and lets go what smtpd has forgotten.

    Args:
        dispatcher: answers what is late.
        runners: who may be late.
        connection: whose sessions are looked after.
        on_crowd: called when too many events wait for handlers, in the hub.
        on_room: called when they no longer do.
        vital: wraps what the loop calls.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        runners: Runners,
        connection: Connection,
        on_crowd: Callable[[], None],
        on_room: Callable[[], None],
        vital: Callable[[Callable[..., Any]], Callable[..., None]] = lambda fn: fn,
    ) -> None:
        self._on_tick = vital(self.tick)
        self._dispatcher = dispatcher
        self._calls = dispatcher.calls
        self._guard = dispatcher.answers.guard
        self._runners = runners
        self._connection = connection
        self._on_crowd = on_crowd
        self._on_room = on_room
        self._crowded = False
        self._once = Once()
        self._timer = gevent.get_hub().loop.timer(_TICK, _TICK)
        self._forgotten: _Forgotten | None = None
        self._knows_transactions = (
            "smtp-in",
            "tx-begin",
        ) in dispatcher.calls.registry.registered_reports()
        self._round: Iterable[Any] = iter(())

    def start(self) -> None:
        """Begin to tick."""
        self._timer.start(self._on_tick)

    def stop(self) -> None:
        """Stop ticking."""
        self._timer.close()

    def drop(self, session: LiveSession) -> None:
        """Forget about a session that has ended."""
        if self._forgotten is not None and session.born < self._connection.generation:
            self._forgotten.pop(session.sid, None)

    def tick(self) -> None:
        """Look after everything once. In the hub; never switches greenlets to wait."""
        now = self._calls.now = self._calls.clock()
        busy = list(self._runners.busy)
        waiting = [task for task in self._runners.ready if isinstance(task, LiveSession)]
        sessions = [runner.task for runner in busy if isinstance(runner.task, LiveSession)]
        queued = 0
        for session in sessions + waiting:
            if session.queue:
                self._start_deadlines(session, now)
                queued += shrink(session)
        self._bound(queued)
        for call in self._guard.expired(now):
            self._dispatcher.expire(call)
        for runner in busy:
            running = runner.running
            if running is not None:
                late = now - runner.since - running.deadline - runner.warned * _INSIST
                if late >= 0:
                    self._hurry(runner)
        self._evict(now)

    def _bound(self, queued: int) -> None:
        """Let smtpd wait while too many events do, since the disk that they belong on is full."""
        crowded = queued > _MAX_QUEUED
        if crowded == self._crowded:
            return
        self._crowded = crowded
        if not crowded:
            self._on_room()
            return
        self._on_crowd()
        text = "%d events wait for handlers; smtpd waits until there are fewer"
        self._once.warn("crowd", text, queued)

    def _start_deadlines(self, session: LiveSession, now: float) -> None:
        """Start the deadlines of the requests in a queue."""
        for item in session.queue:
            if isinstance(item, Call) and item.token is not None and item.owed is None:
                self._guard.expect(item, self._dispatcher.deadline_of(item), now)

    def _hurry(self, runner: Runner) -> None:
        """End a handler that passed its deadline: ask, insist, and then go on without it."""
        handler = runner.running
        runner.warned += 1
        if runner.warned == 1:
            runner.throw(HandlerTimeout(f"{handler!r} passed its {handler.deadline:g} s"))
        elif runner.warned == 2:
            runner.throw(GreenletExit())
        else:
            logger.error("%r does not end; its session goes on without it", handler)
            self.abandon(runner)

    def abandon(self, runner: Runner) -> None:
        """Let another runner go on with what this one does not end. In the hub."""
        task = runner.task
        if isinstance(task, Reader):
            task.give_up()
        elif isinstance(task, LiveSession) and task.runner is runner:
            self._dispatcher.take_over(task, runner)
            self._runners.ready.append(task)
        self._runners.abandon(runner)

    def _evict(self, now: float) -> None:
        """Drop sessions of which smtpd has said nothing for too long.

        Short sessions never come here: a cache entry costs as much as three lines of input.
        """
        forgotten = self._forgotten
        if forgotten is None:
            app = self._dispatcher.app
            # While a request waits for its answer, smtpd says nothing of the session.
            asked = self._calls.registry.filters.values()
            longest = max([app.deadline, *(handler.deadline for handler in asked)])
            ttl = app.config.smtp_session_timeout + longest
            forgotten = self._forgotten = _Forgotten(
                app.max_sessions, ttl, self._calls.clock, self._let_go
            )
        looked_at = list(islice(self._round, _SESSIONS_PER_TICK))
        if not looked_at and now >= forgotten.next_round:
            forgotten.next_round = now + forgotten.round_seconds
            self._round = iter(list(self._connection.sessions.values()))
            self._connection.generation += 1
            forgotten.expire()
        for session in looked_at:
            if session.seen >= self._connection.generation - 1 and not session.closed:
                forgotten[session.sid] = session

    def _let_go(self, session: LiveSession) -> bool:
        """Drop a session that may be dropped; return whether it was."""
        if session.queued:  # a runner has it in its hands
            return False
        assert self._forgotten is not None
        silent = (self._connection.generation - session.seen) * self._forgotten.round_seconds
        may_be_in_data = session.open_tx() is not None or not self._knows_transactions
        if may_be_in_data and silent < LONGEST_MESSAGE:
            return False
        logger.warning("%s: smtpd said nothing of this session for long; let go", session.id)
        self._connection.forget(session)
        self._dispatcher.abandon_session(session)
        return True


class _Forgotten(TTLCache[bytes, LiveSession]):
    """Sessions by the time that smtpd last spoke of them."""

    def __init__(
        self,
        maxsize: int,
        ttl: float,
        timer: Callable[[], float],
        let_go: Callable[[LiveSession], bool],
    ) -> None:
        super().__init__(maxsize, ttl, timer)
        self.round_seconds = ttl / 20
        self.next_round = timer() + self.round_seconds
        self._let_go = let_go

    def expire(self, time: float | None = None) -> list[tuple[bytes, LiveSession]]:
        """Drop what is too old; what may not go yet gets another round."""
        expired = list(super().expire(time))
        for sid, session in expired:
            if not self._let_go(session):
                self[sid] = session
        return expired
