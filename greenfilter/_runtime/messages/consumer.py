"""What deals with the lines of one message, whatever the author's handlers are.

Whatever the author's code does, the message stays whole: when a handler fails, the lines that it
had not dealt with pass unchanged, and commit applies its policy.
"""

from __future__ import annotations

from ...errors import MessageError
from ...protocol import PHASES, TEMPFAIL, Call, Chunk, Stream
from ..calls import Calls
from ..runners import Runner
from .reader import Reader
from .tap import Tap

_DATA_LINE = PHASES["data_line"]


def event_of(stream: Stream) -> Call:
    """Make the event that a data handler is called for."""
    return Call(stream.session, _DATA_LINE, stream.line, 0)


class Consumer:
    """Passes lines on unchanged; the base of those that call a handler.

    Args:
        calls: calls the author's code.
        stream: the message.

    Attributes:
        taps: who reads along.
        failed: the handler has failed; what comes passes unchanged.
        ended: the last lines have come.
    """

    def __init__(self, calls: Calls, stream: Stream) -> None:
        self.calls = calls
        self.answers = calls.answers
        self.stream = stream
        self.failed = False
        self.ended = False
        self._is_lost = False
        self.taps = [
            Tap(calls, stream.session, handler, event_of(stream), stream)
            for handler in calls.registry.taps
        ]

    def take(self, runner: Runner, chunk: Chunk) -> None:
        """Handle a run of lines. May switch greenlets."""
        self.write(self.open(chunk), chunk.ended)

    def close(self) -> None:
        """Free what is held; the message is over. Never switches greenlets."""
        for tap in self.taps:
            tap.cancel()

    def spoil(self) -> None:
        """Refuse the message, and end it where its end has come. Never switches greenlets."""
        self.failed = True
        self.answers.guard.decide_commit(self.stream, TEMPFAIL)
        for tap in self.taps:
            tap.cancel()
        if self.ended:
            self.write([], True)

    def readers(self) -> list[Reader]:
        """Return the readers that run beside their session."""
        return list(self.taps)

    def expire(self, call: Call) -> bool:
        """End what is due by now, if it is this message's end that smtpd waits for.

        Returns:
            Whether it is.
        """
        return False

    def expire_taps(self) -> bool:
        """Make the taps that commit waits for in vain apply their policy.

        Returns:
            Whether there are any.
        """
        return any([tap.expire() for tap in self.taps])

    def open(self, chunk: Chunk) -> list[bytes]:
        """Return the lines of a chunk, as smtpd wrote them, and let the taps read them."""
        self.ended = chunk.ended
        lines = chunk.lines
        if chunk.spilled is not None:
            try:
                lines = chunk.spilled.read()
            except MessageError as error:
                self.lose(error)
        for tap in self.taps:
            tap.put(lines, chunk.ended)
        return lines

    def lose(self, error: MessageError) -> None:
        """Note that the message could not be kept: commit refuses it, whatever the policy."""
        self.failed = True
        if self.stream.open and not self._is_lost:
            self._is_lost = True
            data = self.calls.registry.data
            handler = data[1] if data else None
            self.answers.lose_message(event_of(self.stream), self.stream, handler, error)

    def write(self, lines: list[bytes], ended: bool) -> None:
        """Write lines, dot-stuffed."""
        self.answers.send(self.answers.guard.data(self.stream, lines, ended))
