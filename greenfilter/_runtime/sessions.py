"""What smtpd's sessions become in the runtime: tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .._process.log import logger
from ..errors import RemoteProtocolError, SessionClosed
from ..protocol import Call, Connection, Decision, Session
from .runners import Runner


class Dispatches(Protocol):
    """Who deals with what waits in the queues of sessions."""

    def work(self, runner: Runner, session: LiveSession) -> None:
        """Handle everything in a session's queue, in order. May switch greenlets."""

    def spoil_message(self, session: LiveSession) -> None:
        """Refuse the message that a session is at."""

    def reply(self, call: Call, decision: Decision | None) -> bool:
        """Answer a request from any greenlet or thread."""


class LiveSession(Session):
    """A session that a runner can work on.

    Args:
        runtime: deals with its events.
        sid, incoming, needs: as for :class:`~greenfilter.Session`.

    Attributes:
        runner: who works on it.
        message: what deals with the message whose lines are coming in; None between messages.
    """

    __slots__ = ("message", "runner", "runtime")

    def __init__(self, runtime: Dispatches, sid: bytes, incoming: bool, needs: int) -> None:
        super().__init__(sid, incoming, needs)
        self.runtime = runtime
        self.runner: Runner | None = None
        self.message: Any = None

    def work(self, runner: Runner) -> None:
        """Handle everything in the queue, in order. May switch greenlets."""
        self.runner = runner
        while not runner.abandoned:
            try:
                self.runtime.work(runner, self)
                break
            except SessionClosed:
                continue  # smtpd has ended
            except BaseException:
                if not runner.abandoned:
                    logger.exception("%s: an error outside of any handler", self.id)
                    self.runtime.spoil_message(self)
        if not runner.abandoned:
            self.runner = None
            self.queued = False


class LiveConnection(Connection):
    """The parser, making live sessions.

    Args:
        runtime: deals with the events of the sessions.
        deliver, needs, max_sessions, on_problem, on_evict, on_close, on_control: as for
            :class:`~greenfilter.protocol.Connection`.
    """

    # Each by its name: mypyc passes ``**options`` on to a native class as one dict.
    def __init__(
        self,
        runtime: Dispatches,
        *,
        deliver: Iterable[tuple[str, str]],
        needs: int,
        max_sessions: int,
        on_problem: Callable[[RemoteProtocolError], None],
        on_evict: Callable[[Session], None],
        on_close: Callable[[Session], None],
        on_control: Callable[[bytes], None] | None,
    ) -> None:
        super().__init__(
            deliver=deliver,
            needs=needs,
            max_sessions=max_sessions,
            on_problem=on_problem,
            on_evict=on_evict,
            on_close=on_close,
            on_control=on_control,
        )
        self._runtime = runtime

    def make_session(self, sid: bytes, incoming: bool) -> Session:
        """Make a session that a runner can work on."""
        return LiveSession(self._runtime, sid, incoming, self.needs)
