"""Find the workers that have to go: the dead, the silent, the stuck, the fat and the old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._process.log import Once, logger
from .lifecycle import State
from .memory import Memory
from .options import Options

if TYPE_CHECKING:
    from .pool import Pool
    from .process import WorkerProcess
    from .router import Router

_MEMORY_TICK = 0.25
# A filter that has not loaded after this time never will; smtpd's clients are waiting.
_LOAD_SECONDS = 60.0
# A worker that starts above its memory limit would be replaced for ever.
_MEMORY_SECONDS = 10.0
# One of several workers may be silent only for this long when this much waits for it.
CROWDED_BYTES = 32 << 20
_CROWDED_SECONDS = 2.0
# The same holds for a worker that has let a deadline pass.
_STUCK_SECONDS = 2.0
# This many old workers of each place may finish their sessions; those of older workers are moved to
# the newest between two transactions.
_MAX_OLD = 2


class Watch:
    """Looks after the workers of a pool.

    Args:
        options: how long they may be silent, and how much memory they may have.
        pool: the workers.
        router: knows what they owe.
    """

    def __init__(self, options: Options, pool: Pool, router: Router) -> None:
        self._options = options
        self._pool = pool
        self._router = router
        self._memory = Memory()
        self._next_memory = 0.0
        self._once = Once()

    def tick(self, now: float) -> None:
        """Look after all of them, and the places that are empty."""
        ward = self._router.quarantine
        if ward.worker is not None and ward.is_done():
            self._pool.end_ward()
        ward.admit()
        self._pool.fill(now)
        for worker in list(self._pool.workers):
            self._look_at(worker, now)
        self._thin_out()
        self._pool.reap(now)
        if self._options.max_memory and now >= self._next_memory:
            self._next_memory = now + _MEMORY_TICK
            self._watch_memory(now)

    def look_for_dead(self) -> None:
        """Find out which worker has ended, when a child has."""
        now = self._router.clock()
        for worker in list(self._pool.workers):
            if worker.exit_code() is not None:
                self._look_at(worker, now)

    def read_all(self) -> None:
        """Read what the workers have written while nobody listened, before they are judged."""
        for worker in list(self._pool.workers):
            if worker.link.reading:
                worker.link.read_all()

    def _look_at(self, worker: WorkerProcess, now: float) -> None:
        if worker.exit_code() is not None:
            self._pool.lose(worker)
        elif worker.state is State.LOADING:
            self._watch_load(worker, now)
        elif worker.link.reading and now - worker.beat > self._patience_with(worker):
            silent = now - worker.beat
            self._pool.lose(worker, f"it hangs: no sign of life for {silent:.1f} s", blamed=True)
        elif worker.mute is not None and now - worker.mute > self._options.hang_seconds:
            self._pool.lose(worker, "its loop turns, but it answers nothing", blamed=True)
        elif worker.state is State.LEAVING and (not worker.sessions or now > worker.leave_by):
            logger.info("old worker %d is done, %d sessions", worker.pid, len(worker.sessions))
            self._pool.let_go(worker)
            self._pool.settle()

    def _patience_with(self, worker: WorkerProcess) -> float:
        """Return how long a worker may be silent (seconds): less if an answer is owed."""
        patience = self._options.hang_seconds
        if worker.link.pending > CROWDED_BYTES:
            patience = min(patience, _CROWDED_SECONDS)
        if worker.mute is not None:
            patience = min(patience, _STUCK_SECONDS)
        return patience

    def _thin_out(self) -> None:
        """Keep no more than a few old workers: sessions of the oldest go on in the newest."""
        for place in self._pool.places:
            newest = place.current
            if newest is None or newest.state is not State.SERVING:
                continue
            workers = self._pool.workers.items()
            old = [w for w, at in workers if at is place and w.state is State.LEAVING]
            for worker in old[:-_MAX_OLD]:
                for session in list(worker.sessions.values()):
                    if session.is_between_transactions():
                        self._router.sessions.move(session, newest)

    def _watch_load(self, worker: WorkerProcess, now: float) -> None:
        if now - worker.born < _LOAD_SECONDS:
            return
        if self._pool.has_loaded:
            self._pool.lose(worker, f"not within {_LOAD_SECONDS:g} s", blamed=False)
        elif self._once.is_first("load"):
            logger.critical("the filter still loads after %g s; smtpd waits", _LOAD_SECONDS)

    def _watch_memory(self, now: float) -> None:
        limit = self._options.max_memory
        sizes = self._memory.read([worker.pid for worker in self._pool.workers])
        for worker in list(self._pool.workers):
            memory = sizes.get(worker.pid, 0)
            if memory > 2 * limit:
                self._pool.lose(worker, f"it has {memory >> 20} MiB", blamed=True)
            elif memory > limit and now - worker.loaded > _MEMORY_SECONDS:
                self._pool.relieve(worker, f"has {memory >> 20} MiB")
