"""``lines``: a generator over the message, streaming."""

from __future__ import annotations

from collections.abc import Iterator

from greenlet import GreenletExit

from ..._filter.handlers import Handler
from ..._mail.spool import Spool
from ...errors import MessageError
from ...protocol import Chunk, Stream
from ...protocol._stuffing import stuff, unstuff
from ..calls import Calls
from ..runners import Runner
from .handled import HandledConsumer
from .lines import as_line
from .reader import Reader

# A generator that yields much from few lines is written out in pieces of this many lines.
_FLUSH_LINES = 2048


class Generator(HandledConsumer):
    """``lines``: the generator edits what it is fed, and the session waits until it wants more."""

    def __init__(self, calls: Calls, stream: Stream, handler: Handler) -> None:
        super().__init__(calls, stream, handler)
        self.out: list[bytes] = []
        # With a policy that lets mail pass, what was written cannot be taken back when the
        # generator fails half through: so nothing is written before it has ended.
        self._held = handler.on_error.kind not in ("reject", "disconnect")
        self._original = Spool(max_bytes=calls.app.max_message_bytes)
        self._edited = Spool(max_bytes=calls.app.max_message_bytes)
        self._spools_failed = False
        self._reader = _GeneratorReader(self)

    def take(self, runner: Runner, chunk: Chunk) -> None:
        """Run the generator on a run of lines. Switches greenlets."""
        lines = unstuff(self.open(chunk))
        self._keep(self._original, lines)
        reader = self._reader
        if not reader.done and not self.failed:
            reader.put(lines, chunk.ended)
            reader.join(until_done=chunk.ended)
            lines = reader.take_rest()
        if self.stream.open and (reader.done or self.failed):
            self._pass_on(lines)

    def spoil(self) -> None:
        """Refuse the message, and end it where its end has come. Never switches greenlets."""
        super().spoil()
        self._reader.cancel()

    def close(self) -> None:
        """Free what is held."""
        super().close()
        self._reader.cancel()
        self._original.close()
        self._edited.close()

    def readers(self) -> list[Reader]:
        """Return the readers that run beside their session."""
        return [self._reader, *super().readers()]

    def flush(self) -> None:
        """Write what the generator has yielded, or keep it until it has ended."""
        if self._held:
            self._keep(self._edited, self.out)
        elif self.out:
            self.write(stuff(self.out), False)
        self.out.clear()

    def _keep(self, spool: Spool, lines: list[bytes]) -> None:
        if self._held and not self._spools_failed:
            try:
                spool.append(lines)
            except MessageError as error:
                self._spools_failed = True
                self.lose(error)

    def _pass_on(self, lines: list[bytes]) -> None:
        """Pass on unchanged what the generator left."""
        self.out.extend(lines)
        self.flush()
        if not self.ended:
            return
        if self._held and not self._spools_failed:
            for batch in (self._original if self.failed else self._edited).batches():
                self.write(stuff(batch), False)
                self.answers.wait_room()
        self.write([], True)
        self.close()


class _GeneratorReader(Reader):
    """The generator itself."""

    def __init__(self, message: Generator) -> None:
        super().__init__(message.calls, message.stream.session, message.handler, message.event)
        self._message = message
        self._lines: Iterator[bytes] = iter(())
        self._fed = False

    def put(self, lines: list[bytes], ended: bool) -> None:
        """Feed it. It has dealt with all that came before. Never switches greenlets."""
        self._lines = iter(lines)
        self._fed = True
        self.ended = ended
        self.wake()

    def take_lines(self) -> Iterator[bytes] | None:
        """Return what it was fed, or None if it has had that."""
        fed, self._fed = self._fed, False
        return self._lines if fed else None

    def take_rest(self) -> list[bytes]:
        """Return what it was fed and has not read."""
        return list(self._lines)

    def before_waiting(self) -> None:
        """Write what it has yielded."""
        self._message.flush()

    def give_up(self) -> None:
        """Go on without it, and refuse the message. Never switches greenlets."""
        self._message.spoil()
        self.finish()

    def read(self, runner: Runner) -> None:
        """Run the generator over the message. Switches greenlets."""
        try:
            self._message.call(runner, self._generate, runner)
        except BaseException as error:
            self._message.fail(error)

    def _generate(self, runner: Runner) -> None:
        message = self._message
        generator = self.handler.fn(message.ctx, self.lines(runner))
        if not hasattr(generator, "__next__"):
            raise TypeError(f"returned {type(generator).__name__}; a lines handler yields lines")
        out, turn = message.out, runner.turn
        while True:
            try:
                line = next(generator)
            except StopIteration as stop:
                if stop.value is not None:
                    message.decide(stop.value)
                return
            if type(line) is not bytes or b"\n" in line:
                line = as_line(line)
            out.append(line)
            if turn.missed:
                runner.give_turn()
            if len(out) >= _FLUSH_LINES:
                if runner.abandoned:
                    raise GreenletExit
                message.flush()
                self.calls.make_room(runner)
