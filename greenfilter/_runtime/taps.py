"""``tap``: a reader of the message that runs beside everything else of its session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gevent.event import Event

from .._filter.handlers import Handler
from .._mail.spool import Spool
from .._process.log import logger
from ..errors import HandlerTimeout, MessageError, SessionClosed
from ..protocol import TEMPFAIL, Stream

if TYPE_CHECKING:
    from .engine import Engine
    from .workers import Worker


class Tap:
    """One tap on one message. Lines wait for it on a spool, so it may be as slow as it likes.

    The lines are echoed without waiting for the tap; commit waits for it.
    """

    def __init__(self, engine: Engine, stream: Stream, handler: Handler) -> None:
        self.worker: Worker | None = None
        self.sid = stream.session.sid
        self._engine = engine
        self._stream = stream
        self._handler = handler
        self._spool = Spool(max_bytes=engine.app.max_message_bytes)
        self._error: MessageError | SessionClosed | None = None
        self._ended = False
        self._more = Event()
        self._done = Event()
        engine.start_task(self)

    def put(self, lines: list[bytes], ended: bool) -> None:
        """Give it lines, dot-stuffed. Never switches greenlets."""
        if self._error is None and not self._done.is_set():
            try:
                self._spool.append([line[1:] if line[:1] == b"." else line for line in lines])
            except MessageError as error:
                self._error = error
        self._ended = self._ended or ended
        self._more.set()

    def join(self) -> None:
        """Wait until it is done. Switches greenlets."""
        self._done.wait()

    def cancel(self) -> None:
        """End it, if it runs: the message was given up. Never switches greenlets."""
        if not self._ended and self._error is None:
            self._error = SessionClosed("the message was given up before its end")
            self._more.set()

    def give_up(self) -> None:
        """Have commit go on without it, and refuse the message. Never switches greenlets."""
        self._engine.guard.decide_commit(self._stream, TEMPFAIL)
        self._done.set()

    def expire(self) -> bool:
        """Have commit, which is due, apply its policy; give whether it is not done.

        Each of its batches may take its whole deadline, so it can be later than any of them is.
        Never switches greenlets.
        """
        if self._done.is_set():
            return False
        error = HandlerTimeout("it still read when commit was due")
        ctx = self._engine.context(self._stream)
        self._engine.answers.fail_message(ctx, self._stream, self._handler, error)
        self._done.set()
        return True

    def work(self, worker: Worker) -> None:
        """Run the handler over the message. Switches greenlets."""
        self.worker = worker
        ctx = self._engine.context(self._stream)
        try:
            decision = self._engine.call(
                worker, self._handler, ctx, self._handler.fn, ctx, self._lines(worker)
            )
            if decision is not None:
                self._engine.answers.decide_message(ctx, self._stream, self._handler, decision)
        except BaseException as error:
            if isinstance(self._error, SessionClosed):
                logger.debug("%r ended with its session", self._handler, exc_info=error)
            else:
                self._engine.answers.fail_message(ctx, self._stream, self._handler, error)
        finally:
            self._spool.close()
            self.worker = None
            self._done.set()

    def _lines(self, worker: Worker) -> Iterator[bytes]:
        position = 0
        while True:
            if self._error is not None:
                raise self._error
            self._more.clear()
            if position < self._spool.size:
                lines, position = self._spool.read_lines(position)
                worker.begin(worker.running, self._engine.clock())
                for line in lines:
                    yield line
                    if worker.turn.missed:
                        worker.give_turn()
            elif self._ended:
                return
            else:
                with self._engine.unhurried(worker):
                    self._engine.park(self._more.wait)
