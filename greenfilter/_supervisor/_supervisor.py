"""The loop: smtpd on one side, workers on the other, and what becomes of each."""

from __future__ import annotations

import selectors
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

from .._control import Hello
from .._log import logger
from ..protocol import registration
from ._link import Link
from ._process import WorkerProcess
from ._router import Router
from ._slot import Slot
from ._tracked import Tracked

_TICK = 0.1
_MEMORY_TICK = 1.0
# Above this much that a worker has not taken, smtpd has to wait.
_HIGH_BYTES = 4 << 20
# When smtpd has ended, it waits for its filters.
_END_SECONDS = 0.8


@dataclass(frozen=True)
class Options:
    """How to run the workers.

    Args:
        target: the filter, as the command line has it.
        args: the filter's own options.
        workers: processes that share the sessions.
        max_memory: bytes that a worker may have resident before it is replaced; 0 for no limit.
        hang_seconds: a worker whose loop has not turned for this long is replaced.
        drain_seconds: what a worker that is to be replaced gets to finish its sessions.
        log_level, log_format: for the workers' logs.
    """

    target: str
    args: list[str] = field(default_factory=list)
    workers: int = 1
    max_memory: int = 0
    hang_seconds: float = 10.0
    drain_seconds: float = 300.0
    log_level: str = "info"
    log_format: str = "text"


class Supervisor:
    """Runs a filter in worker processes on smtpd's socket.

    Args:
        options: how.
        fds: of smtpd, to read from and to write to.
    """

    def __init__(self, options: Options, fds: tuple[int, int]) -> None:
        self._options = options
        self._selector = selectors.DefaultSelector()
        self._router = Router(self._send, self._assign, self._on_close, self._on_hello)
        self._smtpd = Link(self._selector, fds, self._router.from_smtpd, self._on_end)
        self._slots = [Slot() for _ in range(options.workers)]
        self._workers: dict[WorkerProcess, Slot] = {}
        self._registered: Hello | None = None
        self._configured = False
        self._exit_code: int | None = None
        self._next_memory = 0.0
        self._woken = self._wake_by_signals()

    def run(self) -> int:
        """Work until smtpd closes its end.

        Returns:
            The exit status: 0, or that of a worker that could not load the filter at the start.
        """
        now = self._router.clock()
        for slot in self._slots:
            slot.current = self._spawn(slot)
        next_tick = now
        while self._exit_code is None:
            for key, mask in self._selector.select(max(0.0, next_tick - self._router.clock())):
                key.data.on_event(mask)
            now = self._router.clock()
            if now >= next_tick:
                next_tick = now + _TICK
                self._tick(now)
            self._configure()
            self._flush()
        self._stop_workers()
        return self._exit_code

    def reload(self) -> None:
        """Start workers with the present code; when all have loaded, new sessions go to them."""
        if self._registered is None:
            return
        logger.info("reload: starting workers with the present code")
        for slot in self._slots:
            if slot.coming is not None:
                slot.coming.kill()
            slot.replaces_alone = False
            slot.coming = self._spawn(slot)

    # Workers come and go

    def _spawn(self, slot: Slot) -> WorkerProcess:
        options: dict[str, object] = {
            "target": self._options.target,
            "args": self._options.args,
            "log_level": self._options.log_level,
            "log_format": self._options.log_format,
        }
        worker = WorkerProcess(
            self._selector,
            options,
            self._router.clock(),
            self._router.from_worker,
            self._on_worker_end,
        )
        self._workers[worker] = slot
        if self._configured:
            worker.link.send(self._router.connection.config.wire())
        return worker

    def _on_hello(self, worker: WorkerProcess, hello: Hello) -> None:
        slot = self._workers.get(worker)
        if slot is None:
            return
        if self._registered is None:
            self._registered = self._router.hello = hello
            reports = {*hello.reports, ("smtp-in", "link-disconnect")}
            self._send(registration(reports, hello.phases))
        elif problem := _not_registered(self._registered, hello):
            logger.error("new code is refused, the old goes on: %s; restart smtpd for it", problem)
            worker.kill()
            return
        worker.hello = hello
        slot.loaded(self._router.clock())
        if slot.coming is worker:
            self._change_over(slot)

    def _change_over(self, slot: Slot) -> None:
        """Give new sessions to a new worker; at a reload, once all the new ones have loaded."""
        if slot.replaces_alone:
            self._promote(slot)
        elif all(slot.coming is not None and slot.coming.hello for slot in self._slots):
            for slot in self._slots:
                self._promote(slot)
            logger.info("reload: new sessions go to the new code")

    def _promote(self, slot: Slot) -> None:
        old, slot.current, slot.coming = slot.current, slot.coming, None
        slot.replaces_alone = False
        if slot.current is not None:
            self._router.hello = slot.current.hello
        if old is not None:
            old.leaving = self._router.clock() + self._options.drain_seconds
        self._adopt_orphans()

    def _on_worker_end(self, worker: WorkerProcess) -> None:
        """A worker's socket has closed: answer what it owed, and start another."""
        slot = self._workers.pop(worker, None)
        worker.link.close()
        worker.kill()
        worker.wait(1.0)
        if slot is None:
            return
        sessions = self._router.abandon(worker)
        self._flush()
        if worker is slot.coming:
            slot.coming = None
            if worker.hello is None:
                logger.error("new code did not load (%s); the old goes on", _end(worker))
                self._give_up_reload()
            return
        if self._registered is None and worker.hello is None:
            self._exit_code = worker.exit_code() or 1
            return
        if worker is slot.current:
            slot.current = None
            delay = slot.failed(self._router.clock(), worker.hello is not None)
            told = logger.error if worker.hello is not None else logger.critical
            told(
                "worker %d ended (%s) with %d sessions; the next one starts in %g s%s",
                worker.pid,
                _end(worker),
                len(sessions),
                delay,
                "" if worker.hello else "; until then every request is answered by policy",
            )
            if not delay:
                slot.current = self._spawn(slot)
        self._adopt_orphans()

    def _give_up_reload(self) -> None:
        for slot in self._slots:
            if slot.coming is not None:
                slot.coming.kill()

    def _adopt_orphans(self) -> None:
        for session in list(self._router.connection.sessions.values()):
            if isinstance(session, Tracked) and session.worker is None:
                worker = self._slot_of(session).current
                if worker is not None:
                    self._router.replay(session, worker)

    def _slot_of(self, session: Tracked) -> Slot:
        return self._slots[int(session.sid[-4:], 16) % len(self._slots)]

    def _assign(self, session: Tracked) -> WorkerProcess | None:
        worker = self._slot_of(session).current
        if worker is not None:
            worker.sessions[session.sid] = session
        return worker

    def _on_close(self, session: Tracked) -> None:
        if session.worker is not None:
            session.worker.sessions.pop(session.sid, None)

    # The loop

    def _send(self, data: bytes) -> None:
        self._smtpd.send(data)

    def _flush(self) -> None:
        self._smtpd.flush()
        crowded = False
        for worker in self._workers:
            worker.link.flush()
            worker.link.set_reading(not self._smtpd.stuck)
            crowded = crowded or worker.link.pending > _HIGH_BYTES
        self._smtpd.set_reading(not (crowded or self._smtpd.stuck))

    def _configure(self) -> None:
        connection = self._router.connection
        if connection.configured and not self._configured:
            self._configured = True
            for worker in self._workers:
                worker.link.send(connection.config.wire())

    def _tick(self, now: float) -> None:
        self._router.expire()
        for slot in self._slots:
            if slot.current is None and now >= slot.next_start:
                slot.current = self._spawn(slot)
                self._adopt_orphans()
        for worker in list(self._workers):
            self._look_at(worker, now)
        if self._options.max_memory and now >= self._next_memory:
            self._next_memory = now + _MEMORY_TICK
            self._watch_memory()

    def _look_at(self, worker: WorkerProcess, now: float) -> None:
        if worker.exit_code() is not None and not worker.link.closed:
            # A child of the worker's may hold its socket open: do not wait for that to close.
            while not worker.link.closed and worker.link.read():
                pass
            if not worker.link.closed:
                self._on_worker_end(worker)
        elif worker.hello is not None and now - worker.beat > self._options.hang_seconds:
            logger.error("worker %d hangs: no sign of life for %g s", worker.pid, now - worker.beat)
            worker.beat = now
            worker.kill()
        elif worker.leaving is not None and (not worker.sessions or now > worker.leaving):
            logger.info("worker %d is done, with %d sessions", worker.pid, len(worker.sessions))
            self._on_worker_end(worker)

    def _watch_memory(self) -> None:
        limit = self._options.max_memory
        for worker, slot in list(self._workers.items()):
            memory = worker.memory()
            if memory > 2 * limit:
                logger.error("worker %d has %d MiB: ended", worker.pid, memory >> 20)
                worker.kill()
            elif memory > limit and slot.current is worker and slot.coming is None:
                logger.warning("worker %d has %d MiB: replaced", worker.pid, memory >> 20)
                slot.replaces_alone = True
                slot.coming = self._spawn(slot)

    def _wake_by_signals(self) -> Any:
        """Have signals wake the loop: SIGHUP reloads, SIGCHLD makes it look at its workers."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGHUP, lambda number, frame: None)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        fd = ours.detach()

        def on_signals(data: bytes) -> None:
            if signal.SIGHUP in data:
                self.reload()
            if signal.SIGCHLD in data:
                now = self._router.clock()
                for worker in list(self._workers):
                    if worker.exit_code() is not None:
                        self._look_at(worker, now)

        return Link(self._selector, (fd, fd), on_signals, lambda: None), theirs

    def _on_end(self) -> None:
        self._exit_code = 0

    def _stop_workers(self) -> None:
        """smtpd has ended: let the workers clean up, for a moment."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        end = self._router.clock() + _END_SECONDS
        workers, self._workers = list(self._workers), {}
        for worker in workers:
            worker.link.close()
        for worker in workers:
            worker.wait(max(0.01, end - self._router.clock()))
        sys.stderr.flush()


def _not_registered(first: Hello, hello: Hello) -> str:
    """Name what new code would need that was not registered with smtpd."""
    missing = [phase for phase in hello.phases if phase not in first.phases]
    missing += [
        f"report {event} of {subsystem}"
        for subsystem, event in hello.reports
        if (subsystem, event) not in first.reports
    ]
    return f"not registered with smtpd: {', '.join(missing)}" if missing else ""


def _end(worker: WorkerProcess) -> str:
    code = worker.exit_code()
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit status {code}"
