"""Deadlines, queues that grow, and sessions that smtpd forgot: looked after ten times a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import gevent
from cachetools import TTLCache
from greenlet import GreenletExit

from .._filter.context import Context
from .._process.log import logger
from ..errors import HandlerTimeout
from ..protocol import LONGEST_MESSAGE, Connection
from .backlog import shrink
from .session import LiveSession
from .taps import Tap
from .workers import Worker, Workers

if TYPE_CHECKING:
    from .engine import Engine

_TICK = 0.1
# A handler that swallows its HandlerTimeout is asked again after this many seconds.
_INSIST = 1.0
# With this many events in memory, since no spool has room for them, nothing is read: some 50 MB.
_MAX_QUEUED = 100_000
# Sessions looked at in one tick, so that 100,000 of them stall nobody (3 us each).
_SESSIONS_PER_TICK = 1000


class Clock:
    """The housekeeper.

    Args:
        engine: answers what is late.
        workers: who may be late.
        connection: whose sessions are looked after.
        on_crowd: called when too many events wait for handlers, in the hub.
        on_room: called when they no longer do.
        vital: wraps what the loop calls.
    """

    def __init__(
        self,
        engine: Engine,
        workers: Workers,
        connection: Connection,
        on_crowd: Callable[[], None],
        on_room: Callable[[], None],
        vital: Callable[[Callable[..., Any]], Callable[..., None]] = lambda fn: fn,
    ) -> None:
        self._on_tick = vital(self.tick)
        self._engine = engine
        self._workers = workers
        self._connection = connection
        self._on_crowd = on_crowd
        self._on_room = on_room
        self._crowded = False
        self._told = False
        self._timer = gevent.get_hub().loop.timer(_TICK, _TICK)
        self._forgotten: _Forgotten | None = None
        self._knows_transactions = ("smtp-in", "tx-begin") in engine.app.registered_reports()
        self._round: Iterable[Any] = iter(())

    def start(self) -> None:
        """Begin to tick."""
        self._timer.start(self._on_tick)

    def stop(self) -> None:
        """Tick no more."""
        self._timer.close()

    def drop(self, session: LiveSession) -> None:
        """Forget about a session that has ended."""
        if self._forgotten is not None and session.born < self._connection.generation:
            self._forgotten.pop(session.sid, None)

    def tick(self) -> None:
        """Look after everything once. In the hub; never switches greenlets to wait."""
        now = self._engine.now = self._engine.clock()
        busy = list(self._workers.busy)
        waiting = [task for task in self._workers.ready if isinstance(task, LiveSession)]
        sessions = [worker.task for worker in busy if isinstance(worker.task, LiveSession)]
        queued = 0
        for session in sessions + waiting:
            if session.queue:
                self._start_deadlines(session, now)
                queued += shrink(session)
        self._bound(queued)
        for call in self._engine.guard.expired(now):
            self._engine.expire(call)
        for worker in busy:
            running = worker.running
            if running is not None:
                late = now - worker.since - running.deadline - worker.warned * _INSIST
                if late >= 0:
                    self._hurry(worker)
        self._evict(now)

    def _bound(self, queued: int) -> None:
        """Have smtpd wait while too many events do: the disk that they would wait on is full."""
        crowded = queued > _MAX_QUEUED
        if crowded == self._crowded:
            return
        self._crowded = crowded
        if not crowded:
            self._on_room()
            return
        self._on_crowd()
        if not self._told:
            self._told = True
            logger.warning(
                "%d events wait for handlers; smtpd waits until there are fewer (told once)", queued
            )

    def _start_deadlines(self, session: LiveSession, now: float) -> None:
        """Start the deadlines of the requests in a queue."""
        engine = self._engine
        for item in session.queue:
            if isinstance(item, Context) and item.token is not None and item.owed is None:
                engine.guard.expect(item, engine.deadline_of(item), now)

    def _hurry(self, worker: Worker) -> None:
        """End a handler that passed its deadline: ask, insist, and then go on without it."""
        handler = worker.running
        worker.warned += 1
        if worker.warned == 1:
            worker.throw(HandlerTimeout(f"{handler!r} passed its {handler.deadline:g} s"))
        elif worker.warned == 2:
            worker.throw(GreenletExit())
        else:
            logger.error("%r does not end; its session goes on without it", handler)
            self.abandon(worker)

    def abandon(self, worker: Worker) -> None:
        """Have another worker go on with what this one does not end. In the hub."""
        task = worker.task
        if isinstance(task, Tap):
            task.give_up()
        elif isinstance(task, LiveSession) and task.worker is worker:
            self._engine.take_over(task, worker)
            self._workers.ready.append(task)
        self._workers.abandon(worker)

    def _evict(self, now: float) -> None:
        """Let go sessions of which smtpd has said nothing for too long.

        Short sessions never come here: a cache entry costs as much as three lines of input.
        """
        forgotten = self._forgotten
        if forgotten is None:
            app = self._engine.app
            # While a request waits for its answer, smtpd says nothing of the session.
            longest = max([app.deadline, *(each.deadline for each in app.filters.values())])
            ttl = app.config.smtp_session_timeout + longest
            forgotten = self._forgotten = _Forgotten(
                app.max_sessions, ttl, self._engine.clock, self._let_go
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
        """Let go a session that may be; give whether it was."""
        if session.queued:  # a worker has it in its hands
            return False
        assert self._forgotten is not None
        silent = (self._connection.generation - session.seen) * self._forgotten.round_seconds
        may_be_in_data = session.open_tx() is not None or not self._knows_transactions
        if may_be_in_data and silent < LONGEST_MESSAGE:
            return False
        logger.warning("%s: smtpd said nothing of this session for long; let go", session.id)
        self._connection.forget(session)
        self._engine.abandon_session(session)
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
        """Let go what is too old; what may not go yet gets another round."""
        expired = list(super().expire(time))
        for sid, session in expired:
            if not self._let_go(session):
                self[sid] = session
        return expired
