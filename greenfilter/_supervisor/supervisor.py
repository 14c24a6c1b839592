"""The supervisor's loop: smtpd's socket, the workers' sockets, signals and a clock."""

from __future__ import annotations

import selectors
import signal
import socket
import time

from .._process.log import logger
from .._process.stderr import Outlet, Sink
from .link import Link
from .listening import ListeningTime
from .options import Options
from .pool import Pool
from .router import Router
from .watch import CROWDED_BYTES, Watch

_TICK = 0.1
# The loop was away for this much longer than it meant to be (seconds).
_AWAY = 1.0
# Above this much that a worker has not taken, smtpd has to wait. With several workers it is more:
# the sessions of the others wait then too, so one that hangs is replaced before (watch.py).
_HIGH_BYTES, _HIGH_BYTES_OF_MANY = 4 << 20, 2 * CROWDED_BYTES
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
        self._router = Router(self._send, lambda: self._smtpd.flush())
        self._time = self._router.clock = ListeningTime()
        self._high_bytes = _HIGH_BYTES if options.workers == 1 else _HIGH_BYTES_OF_MANY
        self._smtpd = Link(self._selector, fds, self._router.from_smtpd, self._on_end)
        self._pool = Pool(options, self._selector, self._router, sink)
        self._watch = Watch(options, self._pool, self._router)
        self._configured = False
        self._exit_code: int | None = None
        self._signals = self._wake_by_signals()

    def run(self) -> int:
        """Work until smtpd closes its end.

        Returns:
            The exit status: 0, or that of a worker that could not load the filter at the start.
        """
        self._pool.start()
        next_tick = time.monotonic() + _TICK
        while self._exit_code is None:
            for key, mask in self._selector.select(max(0.0, next_tick - time.monotonic())):
                self._guarded(key.data.on_event, mask)
            self._time.turn()
            now = time.monotonic()
            if now >= next_tick:
                self._guarded(self._tick, now - next_tick)
                next_tick = time.monotonic() + _TICK
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

    def _tick(self, late: float) -> None:
        if late > _AWAY:
            self._watch.read_all()
        self._router.expire()
        self._watch.tick(self._time())
        if not self._smtpd.reading and not self._smtpd.closed and self._smtpd.hung_up():
            self._on_end()

    def _flush(self) -> None:
        """Write all that is queued; who does not read is not listened to."""
        self._outlet.watch()
        sessions = self._router.sessions
        if sessions.configured and not self._configured:
            self._configured = True
            self._pool.configure(sessions.config.wire())
        if self._router.said:
            self._pool.listen()
        if self._pool.exit_code is not None:
            self._set_exit_code(self._pool.exit_code)
        self._smtpd.flush()
        crowded, stuck = False, self._smtpd.stuck
        for worker in self._pool.workers:
            link = worker.link
            link.flush()
            link.set_reading(not stuck)
            crowded = crowded or link.pending > self._high_bytes
        self._time.set_listening(not stuck)
        self._smtpd.set_reading(not (crowded or stuck))

    def _send(self, data: bytes) -> None:
        self._smtpd.send(data)

    def _wake_by_signals(self) -> tuple[Link, socket.socket]:
        """Make signals wake the loop: SIGHUP reloads, SIGCHLD makes it look at its workers."""
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
            self._watch.look_for_dead()

    def _on_end(self) -> None:
        self._set_exit_code(0)

    def _set_exit_code(self, code: int) -> None:
        if self._exit_code is None:
            self._exit_code = code
