"""The worker processes: how they come, are watched, and go."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._control import Hello
from .._process.log import logger
from .code import Code
from .memory import Memory
from .options import Options
from .process import WorkerProcess
from .slot import Slot
from .suspects import blame, suspects

if TYPE_CHECKING:
    from .._process.stderr import Sink
    from .router import Router
    from .tracked import Tracked

_MEMORY_TICK = 0.25
# A filter that has not loaded by then never will; smtpd's clients are waiting.
_LOAD_SECONDS = 60.0
# A worker that is above its memory from the start on would be replaced forever.
_MEMORY_SECONDS = 10.0
# To end by itself: finish callbacks, run the delete hooks.
_LEAVE_SECONDS = 3.0
# From the end of its socket to that of the process; what it owed has been answered by then.
_REAP_SECONDS = 0.1
# So many old workers of each place may finish their sessions as they like; those of older ones are
# moved to the newest between two transactions.
_MAX_OLD = 2
# As many as a socket's buffer can hold; a child of the worker's may go on writing.
_LAST_READS = 64


class Pool:
    """All workers of a supervisor.

    Args:
        options: how to run them.
        selector: of the loop.
        router: passes their lines on.
        register: is told what the first filter that has loaded registers.
        flush: writes to smtpd what is queued.
        fail: is called if the filter cannot be loaded at the start, with the exit status to give.
        sink: gets what the workers log.

    Attributes:
        workers: all that serve sessions, with their places.
    """

    def __init__(
        self,
        options: Options,
        selector: selectors.BaseSelector,
        router: Router,
        register: Callable[[Hello], None],
        flush: Callable[[], None],
        fail: Callable[[int], None],
        sink: Sink,
    ) -> None:
        self.workers: dict[WorkerProcess, Slot] = {}
        self._options = options
        self._selector = selector
        self._router = router
        self._register = register
        self._flush = flush
        self._fail = fail
        self._sink = sink
        self._slots = [Slot() for _ in range(options.workers)]
        self._code = Code()
        self._new_code: Code | None = None  # of a reload that goes on
        self._ward = Slot()  # of the worker in quarantine
        self._ending: list[WorkerProcess] = []
        self._registered: Hello | None = None
        self._config = b""
        self._next_memory = 0.0
        self._memory = Memory()
        self._warned_of_load = False
        self._reload_is_due = False

    def start(self) -> None:
        """Start the first worker; the others follow when it has loaded the filter."""
        self._slots[0].current = self._spawn(self._slots[0])

    def configure(self, config: bytes) -> None:
        """Tell the workers, and each that comes, what smtpd said of itself."""
        self._config = config
        for worker in self.workers:
            worker.link.send_first(config)

    def reload(self) -> None:
        """Start workers with the present code; when all have loaded, new sessions go to them."""
        if self._registered is None:
            logger.warning("reload: the filter is still being loaded; again after that")
            self._reload_is_due = True
            return
        logger.info("reload: starting workers with the present code")
        self._forgive()
        self._give_up_coming()
        self._new_code = Code()
        self._start_coming(self._slots[:1])  # the others, when it has loaded: all run the same

    def _start_coming(self, slots: list[Slot]) -> None:
        """Start workers with the new code."""
        for slot in slots:
            slot.coming = self._spawn(slot, self._new_code)
            if slot.coming is None:
                self._refuse(slot, "not all workers could be started")
                break

    def _forgive(self) -> None:
        """Forget what has ended workers: the code is another."""
        self._router.poison.clear()
        self._router.quarantine.retire()

    def start_ward(self) -> None:
        """Start a worker for quarantine, if there is none and one may be started."""
        slot = self._ward
        if slot.current is None and self._registered and self._router.clock() >= slot.next_start:
            slot.current = self._spawn(slot)

    def assign(self, session: Tracked) -> WorkerProcess | None:
        """Give the worker for a session, or None while there is none."""
        worker = self._slots[int(session.sid[-4:], 16) % len(self._slots)].current
        if worker is not None:
            worker.sessions[session.sid] = session
        return worker

    # They come

    def _spawn(self, slot: Slot, code: Code | None = None) -> WorkerProcess | None:
        now = self._router.clock()
        options: dict[str, object] = {
            "target": self._options.target,
            "args": self._options.args,
            "log_level": self._options.log_level,
            "log_format": self._options.log_format,
        }
        try:
            worker = WorkerProcess(
                self._selector,
                options,
                code or self._code,
                now,
                self._router.from_worker,
                self._on_end,
                self._sink,
            )
        except (OSError, MemoryError) as error:
            delay = slot.failed(now, 0.0)
            logger.critical("cannot start a worker: %s; next try in %g s", error, delay)
            return None
        self.workers[worker] = slot
        if code is None:
            self._code.tell_changes()
        if self._config:
            worker.link.send_first(self._config)
        return worker

    def on_hello(self, worker: WorkerProcess, hello: Hello) -> None:
        """A worker has loaded its filter."""
        slot = self.workers.get(worker)
        if slot is None or worker.hello is not None:
            return
        if self._registered is not None and (problem := _missing(self._registered, hello)):
            text = f"new code needs what was not registered with smtpd ({problem}); restart smtpd"
            if slot.coming is worker:
                self._refuse(slot, text)
            else:
                self._lose(worker, text)
            return
        worker.hello = hello
        worker.link.held = False
        worker.loaded = worker.beat = self._router.clock()
        if self._registered is None:
            self._registered = self._router.hello = hello
            self._code.seal()
            self._register(hello)
            for other in self._slots:
                other.current = other.current or self._spawn(other)
            if self._reload_is_due:
                self.reload()
        elif slot is self._ward:
            self._router.quarantine.open(worker)
        elif slot.coming is not worker:
            self._router.hello = hello
        elif slot.replaces_alone:
            self._promote(slot)
        elif all(each.coming is not None and each.coming.hello for each in self._slots):
            for each in self._slots:
                self._promote(each)
            self._adopt_code()
            self._forgive()
            logger.info("reload: new sessions go to the new code")

        else:
            if self._new_code is not None:
                self._new_code.seal()
            self._start_coming([each for each in self._slots if each.coming is None])

    def _adopt_code(self) -> None:
        """From now on workers are started with the code of the reload."""
        if self._new_code is not None:
            self._code.close()
            self._code, self._new_code = self._new_code, None
            self._code.seal()

    def _refuse(self, slot: Slot, reason: str) -> None:
        """Have the old code go on."""
        if slot.replaces_alone:
            delay = slot.failed(self._router.clock(), 0.0)
            logger.error("not replaced: %s; next try in %g s", reason, delay)
        else:
            logger.error("reload: %s; the old code goes on", reason)
        self._give_up_coming()

    def _promote(self, slot: Slot) -> None:
        """Give new sessions to the worker that has come, and let the old one finish its own."""
        old, slot.current, slot.coming = slot.current, slot.coming, None
        slot.replaces_alone = False
        if slot.current is not None and slot.current.hello is not None:
            self._router.hello = slot.current.hello
        if old is not None:
            old.leaving = self._router.clock() + self._options.drain_seconds
        self._router.adopt(self.assign)

    # They go

    def _on_end(self, worker: WorkerProcess) -> None:
        """A worker's socket has closed."""
        self._lose(worker)

    def _lose(self, worker: WorkerProcess, reason: str = "", *, blamed: bool = False) -> None:
        """Answer what a worker owed that has ended or is to, and put another in its place.

        Args:
            worker: which.
            reason: why it is ended here; empty if it ended by itself.
            blamed: one of its requests may be the reason; if it ended by itself, it may be.
        """
        slot = self.workers.pop(worker, None)
        if slot is None:
            return
        blamed = blamed or not reason
        found = suspects(worker) if blamed and slot is not self._ward else []
        sessions = self._router.abandon(worker)
        self._flush()
        worker.link.close()
        worker.kill()
        if not worker.wait(_REAP_SECONDS):
            self._ending.append(worker)
        if worker is self._router.quarantine.worker:
            self._router.quarantine.lose(blamed)
        blame(self._router.poison, worker, found)
        self._router.look_at_reports()
        reason = reason or worker.end()
        if self._registered is None:
            self._give_up_start(worker, reason)
        elif worker is slot.coming:
            self._refuse(slot, f"new code did not load ({reason})")
        elif slot is self._ward:
            slot.current = None
            slot.failed(self._router.clock(), self._router.clock() - worker.loaded)
            logger.error("worker %d, in quarantine, ended (%s)", worker.pid, reason)
        elif worker is slot.current:
            self._replace(worker, slot, reason, sessions)
        else:
            logger.error("old worker %d ended (%s), %d sessions", worker.pid, reason, sessions)
        self._router.adopt(self.assign)

    def _replace(self, worker: WorkerProcess, slot: Slot, reason: str, sessions: int) -> None:
        now = self._router.clock()
        slot.current = None
        delay = slot.failed(now, now - worker.loaded if worker.hello else 0.0)
        if worker.hello is not None:
            logger.error(
                "worker %d ended (%s), %d sessions; the next one starts in %g s",
                *(worker.pid, reason, sessions, delay),
            )
        else:
            logger.critical(
                "worker %d did not load the filter (%s); every request is answered by policy "
                "until one does; next try in %g s",
                *(worker.pid, reason, delay),
            )
        if not delay:
            slot.current = self._spawn(slot)

    def _give_up_start(self, worker: WorkerProcess, reason: str) -> None:
        code = worker.exit_code() or 0
        if code != 2:  # else it has said what is wrong
            logger.critical("%s did not load: %s", self._options.target, reason)
        self._fail(code if code > 0 else 2)

    def _give_up_coming(self) -> None:
        for slot in self._slots:
            worker, slot.coming = slot.coming, None
            slot.replaces_alone = False
            if worker is not None:
                self._let_go(worker)
        if self._new_code is not None:
            self._new_code.close()
            self._new_code = None

    def _let_go(self, worker: WorkerProcess) -> None:
        """Have a worker end by itself, with its callbacks finished and its delete hooks run."""
        self.workers.pop(worker, None)
        worker.link.flush()
        self._router.abandon(worker)
        worker.link.close()
        if worker.hello is None:
            worker.kill()  # nothing to finish; many reloads in a row are not to pile up
        worker.kill_at = self._router.clock() + _LEAVE_SECONDS
        self._ending.append(worker)

    # They are watched

    def tick(self, now: float) -> None:
        """Look after all of them."""
        for slot in self._slots if self._registered else self._slots[:1]:
            if slot.current is None and now >= slot.next_start:
                slot.current = self._spawn(slot)
                self._router.adopt(self.assign)
        self._look_at_ward()
        for worker in list(self.workers):
            self._look_at(worker, now)
        self._thin_out()
        for worker in list(self._ending):
            if worker.exit_code() is not None:
                self._ending.remove(worker)
            elif now > worker.kill_at:
                worker.kill()
        if self._options.max_memory and now >= self._next_memory:
            self._next_memory = now + _MEMORY_TICK
            self._watch_memory(now)

    def _look_at_ward(self) -> None:
        """Start a worker for quarantine where one is wanted; end it when it is done."""
        ward, worker = self._router.quarantine, self._ward.current
        if worker is not None and worker is ward.worker and ward.is_done():
            self._ward.current = ward.worker = None
            self._let_go(worker)
        ward.admit()

    def look_for_dead(self) -> None:
        """A child has ended: find out which."""
        now = self._router.clock()
        for worker in list(self.workers):
            if worker.exit_code() is not None:
                self._look_at(worker, now)

    def forgive(self, seconds: float) -> None:
        """Nobody could have been heard for so long: no worker hangs because of it."""
        for worker in self.workers:
            worker.beat += seconds

    def _look_at(self, worker: WorkerProcess, now: float) -> None:
        if worker.exit_code() is not None:
            # What it wrote before its end counts. A child of its may hold the socket open.
            for _ in range(_LAST_READS):
                if worker.link.closed or not worker.link.read():
                    break
            self._lose(worker)
        elif worker.hello is None:
            self._watch_load(worker, now)
        elif worker.link.reading and now - worker.beat > self._options.hang_seconds:
            silent = now - worker.beat
            self._lose(worker, f"it hangs: no sign of life for {silent:.1f} s", blamed=True)
        elif worker.mute is not None and now - worker.mute > self._options.hang_seconds:
            self._lose(worker, "its loop turns, but it answers nothing", blamed=True)
        elif worker.leaving is not None and (not worker.sessions or now > worker.leaving):
            logger.info("old worker %d is done, %d sessions", worker.pid, len(worker.sessions))
            self._let_go(worker)
            self._router.adopt(self.assign)

    def _thin_out(self) -> None:
        """Have no more than a few old workers: the sessions of the oldest go on in the newest."""
        for slot in self._slots:
            old = [w for w, s in self.workers.items() if s is slot and w.leaving is not None]
            if slot.current is None or slot.current.hello is None:
                continue
            for worker in old[:-_MAX_OLD]:
                for session in list(worker.sessions.values()):
                    if session.is_between_transactions():
                        del worker.sessions[session.sid]
                        session.move_to(slot.current)

    def _watch_load(self, worker: WorkerProcess, now: float) -> None:
        if now - worker.born < _LOAD_SECONDS:
            return
        if self._registered is not None:
            self._lose(worker, f"not within {_LOAD_SECONDS:g} s", blamed=False)
        elif not self._warned_of_load:
            self._warned_of_load = True
            logger.critical("the filter still loads after %g s; smtpd waits", _LOAD_SECONDS)

    def _watch_memory(self, now: float) -> None:
        limit = self._options.max_memory
        sizes = self._memory.read([worker.pid for worker in self.workers])
        for worker, slot in list(self.workers.items()):
            memory = sizes.get(worker.pid, 0)
            if memory > 2 * limit:
                self._lose(worker, f"it has {memory >> 20} MiB", blamed=True)
            elif memory > limit and now - worker.loaded > _MEMORY_SECONDS:
                self._relieve(worker, slot, f"has {memory >> 20} MiB")

    def on_worn_out(self, worker: WorkerProcess) -> None:
        """A worker can serve its sessions less and less well."""
        slot = self.workers.get(worker)
        if slot is not None:
            self._relieve(worker, slot, "has no threads left that do not hang")

    def _relieve(self, worker: WorkerProcess, slot: Slot, reason: str) -> None:
        """Start another worker in the place of one that lives, unless that is being done."""
        if slot is self._ward:
            self._router.quarantine.retire()
        elif (
            slot.current is worker
            and slot.coming is None
            and self._router.clock() >= slot.next_start
            and worker.hello is not None
        ):
            logger.warning("worker %d %s: replaced", worker.pid, reason)
            slot.coming = self._spawn(slot)
            slot.replaces_alone = slot.coming is not None

    def close(self, seconds: float) -> None:
        """End them all: they get this long to end by themselves."""
        end = self._router.clock() + seconds
        workers = [*self.workers, *self._ending]
        self.workers.clear()
        for worker in workers:
            worker.link.close()
        for worker in workers:
            if not worker.wait(max(0.01, end - self._router.clock())):
                worker.kill()
        for worker in workers:
            worker.wait(_REAP_SECONDS)


def _missing(first: Hello, hello: Hello) -> str:
    """Name what new code needs that was not registered with smtpd."""
    missing = [phase for phase in hello.phases if phase not in first.phases]
    missing += [
        f"report {event} of {subsystem}"
        for subsystem, event in hello.reports
        if (subsystem, event) not in first.reports
    ]
    return ", ".join(missing)
