"""What is done with the lines of a message: one consumer for each message, by kind of handler.

Whatever the author's code does, the message stays whole: when a handler fails, the lines that it
had not dealt with pass unchanged, and commit applies its policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import gevent
from gevent.monkey import get_original
from greenlet import GreenletExit

from .._filter.context import Context
from .._filter.handlers import Handler
from .._mail.message import Message, split_lines
from .._mail.spool import Spool
from .._process.log import logger
from ..errors import MessageError, SessionClosed
from ..protocol import DROP, TEMPFAIL, Chunk, Decision, Stream
from .backlog import Reports
from .taps import Tap

if TYPE_CHECKING:
    from .engine import Engine
    from .session import LiveSession
    from .workers import Worker

_get_ident: Callable[[], int] = get_original("_thread", "get_ident")
# A generator that yields much from few lines is written out in pieces of this many lines.
_FLUSH_LINES = 2048
_AFTER_MESSAGE = ("tx-reset", "tx-rollback", "link-disconnect", "session-end")


def unstuff(lines: list[bytes]) -> list[bytes]:
    """Take off the dot that smtpd puts before a line that begins with one (RFC 5321, 4.5.2)."""
    return [line[1:] if line[:1] == b"." else line for line in lines]


def stuff(lines: list[bytes]) -> list[bytes]:
    """Put a dot before each line that begins with one."""
    return [b"." + line if line[:1] == b"." else line for line in lines]


class Consumer:
    """Passes lines on unchanged; the base of those that call a handler.

    Attributes:
        taps: who reads along.
        failed: the handler has failed; what comes passes unchanged.
        ended: the last lines have come.
    """

    def __init__(self, engine: Engine, stream: Stream) -> None:
        self.engine = engine
        self.stream = stream
        self.failed = False
        self.ended = False
        self._told = False  # that the message is lost
        self.taps = [Tap(engine, stream, handler) for handler in engine.app.taps]

    def take(self, worker: Worker, chunk: Chunk) -> None:
        """Deal with a run of lines. May switch greenlets."""
        self.write(self.open(chunk), chunk.ended)

    def close(self) -> None:
        """Free what is held; the message is over. Never switches greenlets."""
        for tap in self.taps:
            tap.cancel()

    def spoil(self) -> None:
        """Refuse the message, and end it where its end has come. Never switches greenlets."""
        self.failed = True
        self.engine.guard.decide_commit(self.stream, TEMPFAIL)
        for tap in self.taps:
            tap.cancel()
        if self.ended:
            self.write([], True)

    def open(self, chunk: Chunk) -> list[bytes]:
        """Give the lines of a chunk, as on the wire, and let the taps read them."""
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
        if self.stream.open and not self._told:
            self._told = True
            ctx, data = self.engine.context(self.stream), self.engine.app.data
            self.engine.answers.lose_message(ctx, self.stream, data[1] if data else None, error)

    def write(self, lines: list[bytes], ended: bool) -> None:
        """Write lines, dot-stuffed."""
        self.engine.send(self.engine.guard.data(self.stream, lines, ended))


class HandledConsumer(Consumer):
    """A consumer that calls the author's handler."""

    def __init__(self, engine: Engine, stream: Stream, handler: Handler) -> None:
        super().__init__(engine, stream)
        self.handler = handler
        self.ctx: Context = engine.context(stream)

    def decide(self, decision: Any) -> None:
        """Keep what the handler returned for commit."""
        self.engine.answers.decide_message(self.ctx, self.stream, self.handler, decision)

    def fail(self, error: BaseException) -> None:
        """Note that the handler failed: commit applies its policy, lines pass unchanged."""
        if not self.stream.open:  # the client has left, and with it the message
            logger.debug("%r ended with its session", self.handler, exc_info=error)
        elif not self.failed:
            self.failed = True
            self.engine.answers.fail_message(self.ctx, self.stream, self.handler, error)

    def call(self, worker: Worker, fn: Callable[..., Any], *args: Any) -> Any:
        """Call into the author's code."""
        return self.engine.call(worker, self.handler, self.ctx, fn, *args)


class EachLine(HandledConsumer):
    """``filter.data_line``: the handler is called for every line."""

    def take(self, worker: Worker, chunk: Chunk) -> None:
        """Deal with a run of lines. May switch greenlets."""
        lines = self.open(chunk)
        if not self.failed:
            rest = iter(lines)
            out: list[bytes] = []
            threaded = self.engine.is_threaded(self.handler)
            try:
                self.call(worker, self._edit, worker, rest, out)
            except BaseException as error:
                self.fail(error)
                # A thread that passed its deadline is still at it, with one line in hand.
                threaded = threaded or self.engine.is_threaded(self.handler)
                lines = lines if threaded else [*out, *rest]
            else:
                lines = out
        self.write(lines, chunk.ended)

    def _edit(self, worker: Worker, lines: Iterator[bytes], out: list[bytes]) -> None:
        fn, ctx, keep, turn = self.handler.fn, self.ctx, out.append, worker.turn
        for line in lines:
            try:
                result = fn(ctx, line[1:] if line[:1] == b"." else line)
                if result is None:
                    keep(line)
                elif result is not DROP:
                    out.extend(stuff(_as_lines(result)))
            except BaseException:
                keep(line)
                raise
            if turn.missed:
                worker.give_turn()


class Generated(HandledConsumer):
    """``lines``: a generator over the message, streaming.

    The worker stays inside the generator from the first line to the last; while it waits for
    more lines, it deals with the session's other events as they come.
    """

    def __init__(self, engine: Engine, stream: Stream, handler: Handler) -> None:
        super().__init__(engine, stream, handler)
        self._session: LiveSession = stream.session  # type: ignore[assignment]
        self._worker: Worker | None = None  # in the generator from the first line to the last
        self._lines: Iterator[bytes] = iter(())
        self._out: list[bytes] = []
        # With a policy that lets mail pass, what was written cannot be taken back when the
        # generator fails half through: so nothing is written before it has ended.
        self._held = handler.on_error.kind not in ("reject", "disconnect")
        self._lost = False
        self._original = Spool(max_bytes=engine.app.max_message_bytes)
        self._edited = Spool(max_bytes=engine.app.max_message_bytes)

    def take(self, worker: Worker, chunk: Chunk) -> None:
        """Run the generator over the message that begins with this chunk. Switches greenlets."""
        if self.failed:
            super().take(worker, chunk)
            return
        self._worker = worker
        try:
            self._accept(chunk)
            try:
                self.call(worker, self._generate, worker)
            except BaseException as error:
                self.fail(error)
            if self.stream.open:
                self._pass_rest()
        except SessionClosed:
            pass  # the client left, and with it the message
        finally:
            self.close()

    def close(self) -> None:
        """Free what is held."""
        super().close()
        self._original.close()
        self._edited.close()

    def _generate(self, worker: Worker) -> None:
        generator = self.handler.fn(self.ctx, self._input())
        if not hasattr(generator, "__next__"):
            raise TypeError(f"returned {type(generator).__name__}; a lines handler yields lines")
        out = self._out
        while True:
            try:
                line = next(generator)
            except StopIteration as stop:
                if stop.value is not None:
                    self.decide(stop.value)
                return
            if type(line) is not bytes or b"\n" in line:
                line = _as_line(line)
            out.append(b"." + line if line[:1] == b"." else line)
            if worker.turn.missed:
                worker.give_turn()
            if len(out) >= _FLUSH_LINES:
                self._flush()
                self.engine.make_room(worker)

    def _input(self) -> Iterator[bytes]:
        worker = self._worker
        assert worker is not None
        while True:
            for line in self._lines:
                yield line
                if worker.turn.missed:
                    worker.give_turn()
            if self.ended:
                return
            self._next()

    def _next(self) -> None:
        """Wait for the next lines, dealing with the session's other events meanwhile."""
        engine, session = self.engine, self._session
        assert self._worker is not None
        worker = self._worker
        if worker.abandoned:
            raise GreenletExit  # another worker deals with the session's events
        self._flush()
        while True:
            while session.queue:
                item = session.queue.popleft()
                if type(item) is Chunk and item.stream is self.stream:
                    worker.begin(worker.running, engine.clock())
                    self._accept(item)
                    return
                if _ends_message(item):
                    session.queue.appendleft(item)
                    engine.end_stream(self.stream)
                    raise SessionClosed("the message was given up before its end")
                engine.handle(worker, session, item)
            self._park(worker)

    def _park(self, worker: Any) -> None:
        session = self._session
        session.queued = False
        try:
            with self.engine.unhurried(worker):
                self.engine.park(gevent.get_hub().switch)
        finally:
            session.queued = True

    def _accept(self, chunk: Chunk) -> None:
        lines = unstuff(self.open(chunk))
        self._keep(self._original, lines)
        self._lines = iter(lines)

    def _keep(self, spool: Spool, lines: list[bytes]) -> None:
        if self._held and not self._lost:
            try:
                spool.append(lines)
            except MessageError as error:
                self._lost = True
                self.lose(error)

    def _flush(self) -> None:
        if self._held:
            self._keep(self._edited, unstuff(self._out))
        elif self._out:
            self.write(self._out, False)
        self._out.clear()

    def _pass_rest(self) -> None:
        """Pass on unchanged what the generator left, to the end of the message."""
        while True:
            self._out.extend(stuff(list(self._lines)))
            if self.ended:
                break
            self._next()
        self._flush()
        if self._held and not self._lost:
            for lines in (self._original if self.failed else self._edited).batches():
                self.write(stuff(lines), False)
                self.engine.wait_room()
        self.write([], True)


class Whole(HandledConsumer):
    """``message``: the handler gets the message when all of it has come."""

    def __init__(self, engine: Engine, stream: Stream, handler: Handler) -> None:
        super().__init__(engine, stream, handler)
        self._spool = Spool(max_bytes=engine.app.max_message_bytes)
        self._own_thread = _get_ident()

    def take(self, worker: Worker, chunk: Chunk) -> None:
        """Keep the lines, and call the handler after the last. May switch greenlets."""
        lines = self.open(chunk)
        try:
            if not self.failed:
                self._spool.append(unstuff(lines))
            if chunk.ended and not self.failed:
                for batch in self._handle(worker):
                    self.write(stuff(batch), False)
                    self.engine.wait_room()
        except MessageError as error:
            self.lose(error)
        if chunk.ended:
            self.write([], True)
            self._spool.close()

    def close(self) -> None:
        """Free what is held."""
        super().close()
        self._spool.close()

    def _compute(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the pool of threads, unless the handler is in a thread itself."""
        if _get_ident() != self._own_thread:
            return fn(*args)
        return self.engine.threads.call(self.ctx.session.sid, 0, fn, *args)

    def _handle(self, worker: Worker) -> Iterable[list[bytes]]:
        """Call the handler; give the lines to write."""
        message = Message(self._spool, compute=self._compute)
        try:
            result = self.call(worker, self.handler.fn, self.ctx, message)
            if result is None:
                return message.lines()
            if isinstance(result, (bytes, bytearray)):
                return [split_lines(bytes(result))]
            if not isinstance(result, Decision):
                kind = type(result).__name__
                raise TypeError(f"returned {kind}; None, bytes or a decision is expected")
        except BaseException as error:
            self.fail(error)
        else:
            self.decide(result)
        return self._spool.batches()


def _as_line(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray)):
        raise TypeError(f"a line is bytes, not {type(value).__name__}")
    if b"\n" in value:
        raise ValueError("a line has no LF in it; yield or return several lines")
    return bytes(value)


def _as_lines(result: Any) -> list[bytes]:
    if isinstance(result, (bytes, bytearray, str)):
        return [_as_line(result)]
    return [_as_line(line) for line in result]


def _ends_message(item: Any) -> bool:
    """Whether an item of the queue means that no more lines of the message will come."""
    if type(item) is bytes or type(item) is Reports:
        return False
    if type(item) is Chunk:
        return True
    return item.token is not None or item.hook.wire in _AFTER_MESSAGE
