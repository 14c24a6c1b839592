"""What smtpd's lines become in the runtime: sessions that are tasks, and contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._filter.context import Context
from .._process.log import logger
from ..errors import SessionClosed
from ..protocol import Call, Connection, Event, Phase, Session

if TYPE_CHECKING:
    from .engine import Engine
    from .workers import Worker


class LiveSession(Session):
    """A session that a worker can work on.

    Args:
        runtime: deals with its events.
        sid, incoming, needs: as for :class:`~greenfilter.Session`.
    """

    __slots__ = ("runtime",)

    def __init__(self, runtime: Engine, sid: bytes, incoming: bool, needs: int) -> None:
        super().__init__(sid, incoming, needs)
        self.runtime = runtime

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


class LiveConnection(Connection):
    """The parser, making live sessions and contexts.

    Attributes:
        runtime: deals with the events of the sessions; to be set before the first input.
    """

    runtime: Engine

    def make_session(self, sid: bytes, incoming: bool) -> Session:
        """Make a session that a worker can work on."""
        return LiveSession(self.runtime, sid, incoming, self.needs)

    def make_call(self, session: Session, hook: Phase | Event, line: bytes, body: int) -> Call:
        """Make the context that a handler is called with."""
        return Context(session, hook, line, body)
