"""``message``: the handler gets the message when all of it has come."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from ..._filter.handlers import Handler
from ..._mail.message import Message, mark_as_spam, split_lines
from ..._mail.spool import Spool
from ...errors import MessageError
from ...protocol import JUNK, Chunk, Decision, Stream
from ...protocol._stuffing import stuff, unstuff
from ..calls import Calls
from ..runners import Runner
from .handled import HandledConsumer


class WholeMessage(HandledConsumer):
    """``message``: the handler gets the message when all of it has come."""

    def __init__(self, calls: Calls, stream: Stream, handler: Handler) -> None:
        super().__init__(calls, stream, handler)
        self._spool = Spool(max_bytes=calls.app.max_message_bytes)

    def take(self, runner: Runner, chunk: Chunk) -> None:
        """Keep the lines, and call the handler after the last. May switch greenlets."""
        lines = self.open(chunk)
        try:
            if not self.failed:
                self._spool.append(unstuff(lines))
            if chunk.ended and not self.failed:
                for batch in self._handle(runner):
                    self.write(stuff(batch), False)
                    self.answers.wait_room()
        except MessageError as error:
            self.lose(error)
        if chunk.ended:
            self.write([], True)
            self._spool.close()

    def close(self) -> None:
        """Free what is held."""
        super().close()
        self._spool.close()

    def _handle(self, runner: Runner) -> Iterable[list[bytes]]:
        """Call the handler, and return the lines to write."""
        message = Message(self._spool, compute=partial(self.calls.compute, self.event))
        try:
            result = self.call(runner, self.handler.fn, self.ctx, message)
            lines = lines_of(message, result)
            if lines is not None:
                return lines
        except BaseException as error:
            self.fail(error)
        else:
            self.decide(result)
        return self._spool.batches()


def lines_of(message: Message, result: Any) -> Iterable[list[bytes]] | None:
    """Return the lines of a message as its handler wants it.

    Args:
        message: as the handler has edited it.
        result: what the handler has returned.

    Returns:
        The lines in batches; None if the result is a decision that commit is to apply.

    Raises:
        TypeError: the result is nothing that a handler may return.
        MessageError: the message cannot be read.
    """
    if result is None:
        return message.lines()
    if isinstance(result, (bytes, bytearray)):
        return [split_lines(bytes(result))]
    if not isinstance(result, Decision):
        kind = type(result).__name__
        raise TypeError(f"returned {kind}; None, bytes or a decision is expected")
    return mark_as_spam(message) if result == JUNK else None
