"""``tap``: a reader of the message that runs beside everything else of its session."""

from __future__ import annotations

from collections.abc import Iterator

from ..._filter.context import Context
from ..._filter.handlers import Handler
from ..._mail.spool import Spool
from ..._process.log import logger
from ...errors import HandlerTimeout, MessageError, SessionClosed
from ...protocol import TEMPFAIL, Call, Session, Stream
from ...protocol._stuffing import unstuff
from ..calls import Calls
from ..runners import Runner
from .reader import Reader


class Tap(Reader):
    """One tap on one message. Lines wait for it on a spool, so it may be as slow as it likes.

    The lines are echoed without waiting for the tap; commit waits for it.
    """

    def __init__(
        self, calls: Calls, session: Session, handler: Handler, event: Call, stream: Stream
    ) -> None:
        super().__init__(calls, session, handler, event)
        self._stream = stream
        self._spool = Spool(max_bytes=calls.app.max_message_bytes)
        self._position = 0
        self.wake()

    def put(self, lines: list[bytes], ended: bool) -> None:
        """Feed it lines, dot-stuffed. Never switches greenlets."""
        if self.error is None and not self.done:
            try:
                self._spool.append(unstuff(lines))
            except MessageError as error:
                self.error = error
        self.ended = self.ended or ended
        self.wake()

    def give_up(self) -> None:
        """Let commit go on without it, and refuse the message. Never switches greenlets."""
        self.calls.answers.guard.decide_commit(self._stream, TEMPFAIL)
        self.finish()

    def expire(self) -> bool:
        """Make commit, which is due, apply its policy.

        Each of its batches may take its whole deadline, so it can be later than any of them is.
        Never switches greenlets.

        Returns:
            Whether it is not done.
        """
        if self.done:
            return False
        self._fail(HandlerTimeout("it still read when commit was due"))
        self.finish()
        return True

    def read(self, runner: Runner) -> None:
        """Run the handler over the message. Switches greenlets."""
        answers, handler, event = self.calls.answers, self.handler, self.event
        try:
            decision = self.calls.call(
                runner, handler, event, handler.fn, Context(event), self.lines(runner)
            )
            if decision is not None:
                answers.decide_message(event, self._stream, handler, decision)
        except BaseException as error:
            if isinstance(self.error, SessionClosed):
                logger.debug("%r ended with its session", handler, exc_info=error)
            else:
                self._fail(error)
        finally:
            self._spool.close()

    def take_lines(self) -> Iterator[bytes] | None:
        """Return the next batch, or None if there is none now."""
        if self._position >= self._spool.size:
            return None
        lines, self._position = self._spool.read_lines(self._position)
        return iter(lines)

    def _fail(self, error: BaseException) -> None:
        self.calls.answers.fail_message(self.event, self._stream, self.handler, error)
