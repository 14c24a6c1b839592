"""A session in the hands of the runtime: the task that works off its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._log import logger
from ..errors import SessionClosed
from ..protocol import Session

if TYPE_CHECKING:
    from ._engine import Engine
    from ._workers import Worker


class LiveSession(Session):
    """A session that a worker can work on.

    Attributes:
        runtime: set on the subclass that each engine makes.
    """

    __slots__ = ()

    runtime: Engine

    def work(self, worker: Worker) -> None:
        """Deal with everything in the queue, in order. May switch greenlets."""
        self.worker = worker
        while not worker.abandoned:
            try:
                self.runtime.work_off(worker, self)
                break
            except SessionClosed:
                continue  # smtpd has ended
            except BaseException:
                if not worker.abandoned:
                    logger.exception("%s: an error outside of any handler", self.id)
                    self.runtime.spoil_message(self)
        if not worker.abandoned:
            self.worker = None
            self.queued = False
