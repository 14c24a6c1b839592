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

from .._control import ALIVE, BEAT, WORN_OUT, format_hello
from .._filter.handlers import Handler
from .._process import mark
from .._process.log import logger
from ..errors import ProtocolError, SessionClosed, UsageError
from ..protocol import registration
from .answers import Answers
from .calls import Calls
from .channel import Channel
from .dispatcher import Dispatcher
from .housekeeper import Housekeeper
from .monitor import Monitor
from .runners import Runner, Runners
from .sessions import LiveConnection, LiveSession
from .vital import Vital

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
        self._registry = registry = app._registry
        registry.freeze()
        fds = sock if isinstance(sock, tuple) else (sock.detach(),) * 2
        self.app = app
        self._hub = gevent.get_hub()
        self._vital = Vital(page is not None)
        self._hub.threadpool.maxsize = _NAMES_RESOLVED_AT_ONCE
        self._channel = Channel(fds, self._receive, self._on_end, self._vital)
        self._holds: set[str] = set()  # why nothing is read
        self._runners = Runners(
            app.max_concurrency,
            partial(self._hold, "runners"),
            partial(self._release, "runners"),
            self._vital,
            page,
        )
        self._answers = Answers(self._channel)
        self._calls = Calls(app, self._answers, self._runners, page, clock)
        self._dispatcher = Dispatcher(self._calls)
        self._connection = LiveConnection(
            self._dispatcher,
            deliver=registry.deliveries(),
            needs=registry.need_bits(),
            max_sessions=app.max_sessions,
            on_problem=self._on_problem,
            on_evict=self._on_evict,
            on_close=self._on_close,
            on_control=self._on_control if page is not None else None,
        )
        app.config = self._answers.guard.config = self._connection.config
        self._housekeeper = Housekeeper(
            self._dispatcher,
            self._runners,
            self._connection,
            partial(self._hold, "queues"),
            partial(self._release, "queues"),
            self._vital,
        )
        for threads in (self._calls.threads, self._calls.moved.threads):
            threads.vital = self._vital
            if page is not None:
                threads.on_worn_out = lambda: self._channel.send(WORN_OUT)
        self._supervised = page is not None
        self._page = page
        self._bytes_read = 0
        self._monitor = Monitor(
            self._runners.inside,
            partial(self._channel.from_threads.call, self._on_kept),
            self._hurry,
        )
        self._beat = self._hub.loop.timer(BEAT, BEAT)
        self._registered = False
        self._problems = 0
        self._ended = Event()

    def start(self) -> None:
        """Attach to the hub of the calling thread. Never switches greenlets."""
        self._channel.start()
        self._housekeeper.start()
        self._monitor.start()
        this = weakref.ref(self)  # a hook can't be taken back
        os.register_at_fork(after_in_child=lambda: _leave_to_parent(this()))
        self._beat.start(self._vital(self._say_alive))

    def _say_alive(self) -> None:
        """Tell the supervisor that the loop reads. One that only turns is no use to anybody."""
        if not self._channel.listens():
            self._vital.fail(RuntimeError("nothing reads from smtpd any more"))
            self._channel.listen()
        if self._supervised and self._registered:
            self._channel.send(ALIVE)

    def tick(self) -> None:
        """Look after what time has changed, as the runtime does ten times a second. In the hub."""
        self._housekeeper.tick()

    def is_at_rest(self) -> bool:
        """Return whether nothing that was read is still in hand. Never switches greenlets.

        What waits for a client's next lines, or for ``ctx.reply()``, is not in hand.
        """
        return not self._runners.ready and not self._runners.in_hand()

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
        self._calls.now = self._calls.clock()
        if self._page is not None:
            self._bytes_read += len(data)
            mark.note_read(self._page, self._bytes_read)
        self._runners.ready.extend(self._connection.receive(data))  # type: ignore[arg-type]
        self._runners.dispatch()
        if self._connection.configured and not self._registered:
            self._registered = True
            gevent.spawn(self._register)

    def _hold(self, why: str) -> None:
        self._holds.add(why)
        self._channel.pause()

    def _release(self, why: str) -> None:
        self._holds.discard(why)
        if not self._holds:
            self._channel.resume()

    def _register(self) -> None:
        """Answer the handshake, when the author's on_config functions have returned."""
        for fn in self._registry.config_functions:
            try:
                fn(self.app.config)
            except BaseException as error:
                logger.error("on_config %s failed: %s: %s", fn, type(error).__name__, error)
        try:
            self._registry.configure(self._calls)
        except UsageError as error:
            logger.critical("%s: cannot start: %s", self.app.name, error)
            self._channel.close()
            self._on_end()
            return
        self._dispatcher.take_handlers()
        self._connection.deliver(self._registry.deliveries())
        if self._supervised:
            self._channel.send(format_hello(self.app))
        else:
            reports, phases = self._registry.registered_reports(), self._registry.phases()
            self._channel.send(registration(reports, phases))

    def restore(self, report: bytes) -> None:
        """Take a report that only rebuilds what is known of a session. Never switches greenlets.

        Raises:
            RemoteProtocolError, IndexError: it is not a report.
        """
        self._connection.restore(report)
        self._registry.on_replay(report)

    def _on_control(self, line: bytes) -> None:
        """Take a line of the supervisor's."""
        _, verb, rest = line.split(b"|", 2)
        if verb == b"replay":
            self.restore(rest)
        elif verb == b"forget":
            session: Any = self._connection.sessions.get(rest)
            if session is not None:
                self._housekeeper.drop(session)
                self._connection.forget(session)
                self._dispatcher.abandon_session(session)

    def _on_problem(self, problem: ProtocolError) -> None:
        self._problems += 1
        if self._problems <= _MAX_PROBLEMS_LOGGED:
            logger.warning("from smtpd: %s", problem)
            if self._problems == _MAX_PROBLEMS_LOGGED:
                logger.warning("from smtpd: further problems are not logged")

    def _on_evict(self, session: Any) -> None:
        logger.warning("%s: too many sessions (max_sessions); let go", session.id)
        self._dispatcher.abandon_session(session)

    def _on_close(self, session: Any) -> None:
        """End callbacks with ``cancel_on_close``: the client has left."""
        self._housekeeper.drop(session)
        self._registry.on_close(session)
        if session.queued:
            gevent.get_hub().loop.run_callback(self._cancel, session)

    def _cancel(self, session: LiveSession) -> None:
        runners = [session.runner]
        if session.last_stream is not None and session.last_stream.consumer is not None:
            runners += [reader.runner for reader in session.last_stream.consumer.readers()]
        for runner in runners:
            if runner is not None and runner.running is not None and runner.running.cancel_on_close:
                runner.throw(SessionClosed("the client left"))

    def _on_kept(self, handler: Handler, place: str) -> None:
        """Move a handler that has kept the loop, if it may be moved."""
        if self.app.auto_thread:
            self._calls.moved.note(handler, place)

    def _hurry(self) -> None:
        """Send the next answer at once, with the sign of life: the loop is kept.

        From the monitor's thread.
        """
        self._runners.turn.missed = True
        self._channel.urgent = ALIVE if self._supervised and self._registered else b""

    # The end

    def _on_end(self) -> None:
        gevent.spawn(self._end)

    def _end(self) -> None:
        """Finish callbacks, run the delete hooks, and be done: smtpd has closed."""
        self._until(self._is_idle)
        for session in self._connection.sessions.values():
            if session.last_stream is not None:
                self._dispatcher.end_stream(session.last_stream)
        for runner in list(self._runners.busy):
            self._hub.loop.run_callback(self._interrupt, runner)
        self._until(self._is_idle)
        for runner in list(self._runners.busy):
            if runner.running:
                self._housekeeper.abandon(runner)
        gevent.sleep(0)
        self._monitor.stop()
        self._beat.close()
        sessions: list[Any] = list(self._connection.sessions.values())
        for session in sessions:
            self._dispatcher.abandon_session(session)
        self._until(lambda: not self._runners.ready and self._is_idle())
        self._registry.on_end()
        self._housekeeper.stop()
        self._runners.turn.stop()
        self._calls.threads.close()
        self._calls.moved.threads.close()
        self._ended.set()

    def _interrupt(self, runner: Runner) -> None:
        if runner in self._runners.busy:  # still
            runner.throw(SessionClosed("smtpd has ended"))

    def _is_idle(self) -> bool:
        return not any(runner.running for runner in self._runners.busy)

    @staticmethod
    def _until(condition: Any) -> None:
        end = time.monotonic() + _GRACE
        while not condition() and time.monotonic() < end:
            gevent.sleep(0.005)


def _leave_to_parent(runtime: Runtime | None) -> None:
    """Keep a forked child from doing anything that the sessions wait for."""
    if runtime is not None:
        runtime._runners.leave_to_parent()
        runtime._calls.page = None
