"""A session in the hands of the runtime: the task that works off its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol import Session

if TYPE_CHECKING:
    from ._engine import Engine
    from ._workers import Worker


class LiveSession(Session):
    """A session with a worker.

    Attributes:
        runtime: set on the subclass that each engine makes.
        worker: what is in its hands, or None.
        waiting: its worker is parked until the next lines of a message have come.
        held: it is in the cache of those that smtpd may have forgotten.
    """

    __slots__ = ("held", "waiting", "worker")

    runtime: Engine

    def __init__(self, sid: bytes, incoming: bool, needs: int) -> None:
        super().__init__(sid, incoming, needs)
        self.worker: Worker | None = None
        self.waiting = False
        self.held = False

    def work(self, worker: Worker) -> None:
        """Deal with everything in the queue, in order. May switch greenlets."""
        self.worker = worker
        queue, handle = self.queue, self.runtime.handle
        while queue:
            handle(worker, self, queue.popleft())
            if worker.abandoned:
                return
        self.worker = None
        self.queued = False
