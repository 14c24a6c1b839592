"""The supervisor's loop: smtpd's socket, the workers' sockets, signals and a clock."""

from __future__ import annotations

import selectors
import signal
import socket

from .._control import Hello
from .._process.log import logger
from .._process.stderr import Outlet, Sink
from ..protocol import registration
from .link import Link
from .options import Options
from .pool import Pool
from .router import Router

_TICK = 0.1
# The loop was away for this much longer than it meant to be (seconds).
_AWAY = 1.0
# Above this much that a worker has not taken, smtpd has to wait.
_HIGH_BYTES = 4 << 20
# When smtpd has ended, it waits for its filters.
_END_SECONDS = 0.75


class Supervisor:
    """Runs a filter in worker processes on smtpd's socket.

    Args:
        options: how.
        fds: of smtpd, to read from and to write to.
        sink: stderr, for what the workers log.
    """

    def __init__(self, options: Options, fds: tuple[int, int], sink: Sink) -> None:
        self._selector = selectors.DefaultSelector()
        self._sink = sink
        self._outlet = Outlet(self._selector, sink)
        self._router = Router(
            self._send,
            lambda session: self._pool.assign(session),
            lambda worker, hello: self._pool.on_hello(worker, hello),
            lambda worker: self._pool.on_worn_out(worker),
            lambda: self._pool.start_ward(),
        )
        self._smtpd = Link(self._selector, fds, self._router.from_smtpd, self._on_end)
        self._pool = Pool(
            options,
            self._selector,
            self._router,
            self._register,
            self._smtpd.flush,
            self._set_exit_code,
            sink,
        )
        self._configured = False
        self._exit_code: int | None = None
        self._signals = self._wake_by_signals()

    def run(self) -> int:
        """Work until smtpd closes its end.

        Returns:
            The exit status: 0, or that of a worker that could not load the filter at the start.
        """
        self._pool.start()
        next_tick = self._router.clock() + _TICK
        while self._exit_code is None:
            for key, mask in self._selector.select(max(0.0, next_tick - self._router.clock())):
                self._guarded(key.data.on_event, mask)
            now = self._router.clock()
            if now >= next_tick:
                self._guarded(self._tick, now, now - next_tick)
                next_tick = now + _TICK
            self._guarded(self._flush)
        self._smtpd.flush()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._pool.close(_END_SECONDS)
        self._sink.close()
        return self._exit_code

    def _guarded(self, do: object, *args: object) -> None:
        """Go on after an error of our own: smtpd would end with us."""
        try:
            do(*args)  # type: ignore[operator]
        except Exception:
            logger.exception("the supervisor survived an error of its own")

    def _tick(self, now: float, late: float) -> None:
        if late > _AWAY:
            self._pool.forgive(late)
        self._router.expire()
        self._pool.tick(now)
        if not self._smtpd.reading and not self._smtpd.closed and self._smtpd.hung_up():
            self._on_end()

    def _flush(self) -> None:
        """Write all that is queued; who does not read is not listened to."""
        self._outlet.watch()
        connection = self._router.connection
        if connection.configured and not self._configured:
            self._configured = True
            self._pool.configure(connection.config.wire())
        self._smtpd.flush()
        crowded, stuck = False, self._smtpd.stuck
        for worker in self._pool.workers:
            link = worker.link
            link.flush()
            if link.reading == stuck:
                link.set_reading(not stuck)
                worker.beat = self._router.clock()
            crowded = crowded or link.pending > _HIGH_BYTES
        self._smtpd.set_reading(not (crowded or stuck))

    def _send(self, data: bytes) -> None:
        self._smtpd.send(data)

    def _register(self, hello: Hello) -> None:
        reports = {*hello.reports, ("smtp-in", "link-disconnect")}
        self._send(registration(reports, hello.phases))

    def _wake_by_signals(self) -> tuple[Link, socket.socket]:
        """Have signals wake the loop: SIGHUP reloads, SIGCHLD makes it look at its workers."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGHUP, lambda number, frame: None)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        fd = ours.detach()
        return Link(self._selector, (fd, fd), self._on_signals, lambda: None), theirs

    def _on_signals(self, data: bytes) -> None:
        if signal.SIGHUP in data:
            self._pool.reload()
        if signal.SIGCHLD in data:
            self._pool.look_for_dead()

    def _on_end(self) -> None:
        self._set_exit_code(0)

    def _set_exit_code(self, code: int) -> None:
        if self._exit_code is None:
            self._exit_code = code
