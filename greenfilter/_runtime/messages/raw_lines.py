"""``raw_line``: what greenfilter.osmtpd makes its data line callback of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from greenlet import getcurrent

from ..._filter.handlers import Handler
from ...errors import DecisionError, HandlerTimeout
from ...protocol import Call, Chunk, Stream
from ..calls import Calls
from ..runners import Runner
from .handled import HandledConsumer

# A callback that writes much for one line has it sent in pieces of this many lines.
_FLUSH_LINES = 2048


class RawLines(HandledConsumer):
    """``raw_line``: the handler sees lines as on the wire, and writes each one itself.

    ``handler(ctx, write)`` begins a message and returns what is called with every line, also with
    the final dot. ``write(line)`` may be called then or later, from any greenlet or thread; the
    message lasts until the handler has written its own final dot.
    """

    def __init__(self, calls: Calls, stream: Stream, handler: Handler) -> None:
        super().__init__(calls, stream, handler)
        self._give: Callable[[bytes], Any] | None = None
        self._out: list[bytes] = []
        self._runner: Runner | None = None  # which is in the handler, and will flush
        self._all_given = False
        self._done = False

    def take(self, runner: Runner, chunk: Chunk) -> None:
        """Hand a run of lines to the handler. May switch greenlets."""
        rest = iter(self.open(chunk))
        if chunk.ended and not self.failed:
            self.answers.guard.expect(self.event, self.handler.deadline, self.calls.clock())
        if not self.failed:
            self._runner = runner
            try:
                self.call(runner, self._handle, runner, rest, chunk.ended)
            except BaseException as error:
                if not self.failed:
                    self.fail(error)
            self._runner = None
        if self.failed:
            self._pass(list(rest), chunk.ended)
        else:
            self._flush()

    def put(self, line: bytes) -> bool:
        """Write one line for the handler.

        Returns:
            False if the message had ended by then; nothing changes then.

        Raises:
            DecisionError: the final dot comes before all lines have come.
        """
        if self._done or self.failed or not self.stream.open:
            return False
        if line == b".":
            if not self._all_given:
                raise DecisionError("a final dot before all lines have come cuts the message short")
            self._done = True
        self._out.append(line)
        if self._runner is None:
            self.answers.run_soon(self._flush)
        elif len(self._out) >= _FLUSH_LINES and getcurrent() is self._runner.greenlet:
            self._flush()
            self.calls.make_room(self._runner)
        return True

    def spoil(self) -> None:
        """Refuse the message, and end it where its end has come. Never switches greenlets."""
        super().spoil()
        self._settle()

    def close(self) -> None:
        """Free what is held."""
        super().close()
        self._settle()
        self._out.clear()

    def expire(self, call: Call) -> bool:
        """End a message that the handler has not ended by its deadline. In the hub."""
        if call is not self.event:
            return False
        deadline = self.handler.deadline
        self.fail(HandlerTimeout(f"the message was not ended within {deadline:g} s"))
        self._pass([], True)
        return True

    def _handle(self, runner: Runner, lines: Iterator[bytes], ended: bool) -> None:
        if self._give is None:
            self._give = self.handler.fn(self.ctx, self.put)
        for line in lines:
            self._give(line)
            if runner.turn.missed:
                runner.give_turn()
        if ended:
            self._all_given = True
            self._give(b".")

    def _flush(self) -> None:
        count = len(self._out)  # another thread may be adding to it
        lines = self._out[:count]
        del self._out[:count]
        ended = b"." in lines
        self.write(lines[: lines.index(b".")] if ended else lines, ended)
        if ended:
            self._settle()

    def _pass(self, lines: list[bytes], ended: bool) -> None:
        """Pass on what the handler failed to deal with. The message is refused at commit."""
        self._out.clear()
        self.write(lines, ended)
        if ended:
            self._settle()

    def _settle(self) -> None:
        """Note that smtpd no longer waits for the end of the message."""
        self.answers.guard.forget(self.event)
