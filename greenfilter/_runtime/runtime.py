"""The runtime: one filter on one socket, in the gevent hub of one thread."""

from __future__ import annotations

import mmap
import os
import socket
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event

from .._control import ALIVE, BEAT, WORN_OUT, hello
from .._filter.handlers import Handler
from .._process.log import logger
from ..errors import ProtocolError, SessionClosed, UsageError
from ..protocol import registration
from .clock import Clock
from .engine import Engine
from .monitor import Monitor
from .session import LiveConnection, LiveSession
from .vital import Vital
from .wire import Wire
from .workers import Worker, Workers

if TYPE_CHECKING:
    from .._filter.app import Filter

# At the end, running callbacks get this many seconds before they are ended, as many to end, and
# delete hooks as many again. smtpd is gone by then, or waits for us to go.
_GRACE = 0.2
_MAX_PROBLEMS_LOGGED = 100
# gevent resolves names in threads, ten at most: the eleventh client of a slow DNS server would
# wait for the first. Threads are started when needed; 256 that wait take 10 MB.
_NAMES_RESOLVED_AT_ONCE = 256


class Runtime:
    """Runs a filter on a socket to smtpd (or to the supervisor).

    Args:
        app: the filter.
        sock: connected, or the two file descriptors to read from and to write to. The runtime
            owns it from now on.
        page: under a supervisor, the page in which to leave whose code runs (``_process/mark.py``).
        clock: gives the time (monotonic seconds) that deadlines and forgotten sessions go by.
    """

    def __init__(
        self,
        app: Filter,
        sock: socket.socket | tuple[int, int],
        page: mmap.mmap | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        app.freeze()
        fds = sock if isinstance(sock, tuple) else (sock.detach(),) * 2
        self.app = app
        self._hub = gevent.get_hub()
        self._vital = Vital(page is not None)
        self._hub.threadpool.maxsize = _NAMES_RESOLVED_AT_ONCE
        self._wire = Wire(fds, self._receive, self._on_end, self._vital)
        self._holds: set[str] = set()  # why nothing is read
        self._workers = Workers(
            app.max_concurrency,
            partial(self._hold, "workers"),
            partial(self._release, "workers"),
            self._vital,
            page,
        )
        self._engine = Engine(
            app,
            self._wire.send,
            self._wire.send_threadsafe,
            self._wire.from_threads.call,
            self._wire.wait_room,
            self._workers.park,
            self._start_task,
            page,
            clock,
        )
        self._connection = LiveConnection(
            deliver=app.deliveries(),
            needs=app.need_bits(),
            max_sessions=app.max_sessions,
            on_problem=self._on_problem,
            on_evict=self._on_evict,
            on_close=self._on_close,
            on_control=self._on_control if page is not None else None,
        )
        self._connection.runtime = self._engine
        app.config = self._engine.guard.config = self._connection.config
        self._clock = Clock(
            self._engine,
            self._workers,
            self._connection,
            partial(self._hold, "queues"),
            partial(self._release, "queues"),
            self._vital,
        )
        self._engine.threads.vital = self._vital
        self._engine.moved.threads.vital = self._vital
        self._supervised = page is not None
        self._monitor = Monitor(
            self._workers.inside,
            partial(self._wire.from_threads.call, self._on_kept),
            self._hurry,
        )
        if self._supervised:
            self._engine.threads.on_worn_out = lambda: self._wire.send(WORN_OUT)
            self._engine.moved.threads.on_worn_out = lambda: self._wire.send(WORN_OUT)
        self._beat = self._hub.loop.timer(BEAT, BEAT)
        self._registered = False
        self._problems = 0
        self._ended = Event()

    def start(self) -> None:
        """Attach to the hub of the calling thread. Never switches greenlets."""
        self._wire.start()
        self._clock.start()
        self._monitor.start()
        this = weakref.ref(self)  # a hook can't be taken back
        os.register_at_fork(after_in_child=lambda: _leave_to_parent(this()))
        self._beat.start(self._vital(self._say_alive))

    def _say_alive(self) -> None:
        """Tell the supervisor that the loop reads. One that only turns is no use to anybody."""
        if not self._wire.listens():
            self._vital.fail(RuntimeError("nothing reads from smtpd any more"))
            self._wire.listen()
        if self._supervised and self._registered:
            self._wire.send(ALIVE)

    def tick(self) -> None:
        """Look after what time has changed, as the runtime does ten times a second. In the hub."""
        self._clock.tick()

    def is_at_rest(self) -> bool:
        """Tell whether nothing that was read is still in hand. Never switches greenlets.

        What waits for a client's next lines, or for ``ctx.reply()``, is not in hand.
        """
        return not self._workers.ready and not self._workers.in_hand()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until everything has ended after smtpd's EOF. Switches greenlets.

        Args:
            timeout: seconds to wait at most; None waits without limit.

        Returns:
            Whether it has ended.
        """
        return bool(self._ended.wait(timeout))

    def run(self) -> None:
        """Start, and return when smtpd has closed the socket and all is cleaned up. Switches."""
        self.start()
        ended = False
        while not ended:
            try:
                ended = self.join()
            except BaseException as error:
                # gevent hands on here what ends a greenlet that the author has spawned.
                logger.error("%s in a greenlet of the filter's own, ignored", type(error).__name__)

    # Input, in the hub

    def _receive(self, data: bytes) -> None:
        self._engine.now = self._engine.clock()
        self._workers.ready.extend(self._connection.receive(data))  # type: ignore[arg-type]
        self._workers.dispatch()
        if self._connection.configured and not self._registered:
            self._registered = True
            gevent.spawn(self._register)

    def _hold(self, why: str) -> None:
        self._holds.add(why)
        self._wire.pause()

    def _release(self, why: str) -> None:
        self._holds.discard(why)
        if not self._holds:
            self._wire.resume()

    def _register(self) -> None:
        """Answer the handshake, when the author's on_config functions have returned."""
        for fn in self.app.on_config_handlers:
            try:
                fn(self.app.config)
            except BaseException as error:
                logger.error("on_config %s failed: %s: %s", fn, type(error).__name__, error)
        try:
            self.app.configure(self._engine)
        except UsageError as error:
            logger.critical("%s: cannot start: %s", self.app.name, error)
            self._wire.close()
            self._on_end()
            return
        self._engine.take_handlers()
        self._connection.deliver(self.app.deliveries())
        if self._supervised:
            self._wire.send(hello(self.app))
        else:
            self._wire.send(registration(self.app.registered_reports(), self.app.phases()))

    def restore(self, report: bytes) -> None:
        """Take a report that only rebuilds what is known of a session. Never switches greenlets.

        Raises:
            RemoteProtocolError, IndexError: it is none.
        """
        self._connection.restore(report)
        self.app.on_replay(report)

    def _on_control(self, line: bytes) -> None:
        """Take a line of the supervisor's."""
        _, verb, rest = line.split(b"|", 2)
        if verb == b"replay":
            self.restore(rest)
        elif verb == b"forget":
            session: Any = self._connection.sessions.get(rest)
            if session is not None:
                self._clock.drop(session)
                self._connection.forget(session)
                self._engine.abandon_session(session)

    def _start_task(self, task: Any) -> None:
        self._workers.ready.append(task)
        self._workers.schedule()

    def _on_problem(self, problem: ProtocolError) -> None:
        self._problems += 1
        if self._problems <= _MAX_PROBLEMS_LOGGED:
            logger.warning("from smtpd: %s", problem)
            if self._problems == _MAX_PROBLEMS_LOGGED:
                logger.warning("from smtpd: further problems are not logged")

    def _on_evict(self, session: Any) -> None:
        logger.warning("%s: too many sessions (max_sessions); let go", session.id)
        self._engine.abandon_session(session)

    def _on_close(self, session: Any) -> None:
        """The client has left. End what asked to be ended then."""
        self._clock.drop(session)
        self.app.on_close(session)
        if session.queued:
            gevent.get_hub().loop.run_callback(self._cancel, session)

    def _cancel(self, session: LiveSession) -> None:
        workers = [session.worker]
        if session.last_stream is not None and session.last_stream.consumer is not None:
            workers += [tap.worker for tap in session.last_stream.consumer.taps]
        for worker in workers:
            if worker is not None and worker.running is not None and worker.running.cancel_on_close:
                worker.throw(SessionClosed("the client left"))

    def _on_kept(self, handler: Handler, place: str) -> None:
        """A handler has kept the loop."""
        if self.app.auto_thread:
            self._engine.moved.note(handler, place)

    def _hurry(self) -> None:
        """The loop is kept: have the next answer leave at once, with the sign of life.

        From the monitor's thread.
        """
        self._workers.turn.missed = True
        self._wire.urgent = ALIVE if self._supervised and self._registered else b""

    # The end

    def _on_end(self) -> None:
        gevent.spawn(self._end)

    def _end(self) -> None:
        """smtpd has closed: let callbacks finish, run the delete hooks, and be done."""
        self._until(self._is_idle)
        for session in self._connection.sessions.values():
            if session.last_stream is not None:
                self._engine.end_stream(session.last_stream)
        for worker in list(self._workers.busy):
            self._hub.loop.run_callback(self._interrupt, worker)
        self._until(self._is_idle)
        for worker in list(self._workers.busy):
            if worker.running:
                self._clock.abandon(worker)
        gevent.sleep(0)
        self._monitor.stop()
        self._beat.close()
        sessions: list[Any] = list(self._connection.sessions.values())
        for session in sessions:
            self._engine.abandon_session(session)
        self._until(lambda: not self._workers.ready and self._is_idle())
        self.app.on_end()
        self._clock.stop()
        self._workers.turn.stop()
        self._engine.threads.close()
        self._engine.moved.threads.close()
        self._ended.set()

    def _interrupt(self, worker: Worker) -> None:
        if worker in self._workers.busy:  # still
            worker.throw(SessionClosed("smtpd has ended"))

    def _is_idle(self) -> bool:
        return not any(worker.running for worker in self._workers.busy)

    @staticmethod
    def _until(condition: Any) -> None:
        end = time.monotonic() + _GRACE
        while not condition() and time.monotonic() < end:
            gevent.sleep(0.005)


def _leave_to_parent(runtime: Runtime | None) -> None:
    """Have a forked child do nothing of what the sessions wait for."""
    if runtime is not None:
        runtime._workers.leave_to_parent()
        runtime._engine.page = None
