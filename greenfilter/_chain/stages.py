"""The message of a chain: each member with a data handler is a stage, and lines stream through all.

A stage is a generator that pulls batches of lines from the one before it, all in the greenlet of
the session: nothing is in flight but the batch in hand, whatever the size of the message.

A stage that fails hands on what it got, and its policy is applied at commit, if nothing of its
output has left it. Where its policy refuses, what it hands on does not matter; where it lets mail
pass, its output is held until it has ended. After a refusal the stages before it see the rest of
the message, as an earlier member's refusal goes first; the later ones are ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import _control
from .._filter.context import Context
from .._filter.handlers import Handler
from .._mail.message import Message
from .._mail.spool import Spool
from .._runtime.messages.lines import as_line, as_lines
from .._runtime.messages.tap import Tap
from .._runtime.messages.whole_message import lines_of
from ..errors import MessageError, SessionClosed
from ..protocol import BYPASS, DROP, PROCEED, TEMPFAIL, Call, Decision, Stream
from ..protocol._stuffing import stuff
from .edits import Edits

if TYPE_CHECKING:
    from .._runtime.calls import Calls
    from .member import Member
    from .observer import Observer

Batch = list[bytes]
_BATCH_LINES = 256
_BATCH_BYTES = 1 << 16
# While a stage computes, its deadline runs; it begins again after this many batches, as that of a
# filter by itself does with each piece of input.
_BATCHES_PER_DEADLINE = 4
_NO_TOKEN = b"0" * 16
_REFUSED = "the message is refused by an earlier filter of the chain"


class Pipeline:
    """One message on its way through a chain. Made in the runner that reads it.

    Args:
        real: the session, as the runtime has it.
        observers: who only looks on.
    """

    def __init__(self, real: Any, observers: dict[Member, Observer]) -> None:
        self._real = real
        self._observers = observers
        self._stages: dict[Member, Stage] = {}

    def add(self, member: Member, view: Call) -> None:
        """Let a member see this message: its conditions hold, from here through commit."""
        self._stages[member] = Stage(self._real, member, view, self._observers.get(member))

    def includes(self, member: Member) -> bool:
        """Return whether a member sees this message."""
        return member in self._stages

    def verdict(self, member: Member) -> Decision:
        """Return what a member has decided from the lines, when its taps are done. May switch."""
        return self._stages[member].verdict()

    def run(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the lines as the last stage has left them."""
        source: Iterator[Batch] = _batches(lines)
        edits = Edits() if _control.TELL_EDITS in os.environ else None
        if edits is not None:
            source = edits.watch("", source)
        for member, stage in self._stages.items():
            source = stage.attach(source)
            if edits is not None:
                source = edits.watch(repr(member), source)
        try:
            for batch in source:
                yield from batch
            if edits is not None:
                edits.log(self._real.id)
        except SessionClosed:
            if not any(stage.is_refused for stage in self._stages.values()):
                raise
        finally:
            for stage in self._stages.values():
                stage.close()


class Stage:
    """What one member does with one message."""

    def __init__(self, real: Any, member: Member, view: Call, observer: Observer | None) -> None:
        self._real = real
        self._member = member
        self._view = view
        self._observer = observer
        self._calls: Calls = real.runtime.calls
        self._answers = self._calls.answers
        self._runner = self._calls.runners.current()
        self._stream = Stream(view.session, _NO_TOKEN, view.line)
        self._ctx = Context(view)
        self._taps: list[Tap] = []
        self._spools: list[Spool] = []
        self._outer: Any = None  # what runs when this stage does not
        self._spent = 0.0  # seconds of its deadline
        self._pulled = 0
        self._rest: Iterator[bytes] = iter(())  # of the batch in hand
        self._is_bypass = False
        self._value: Any = None  # what its generator has returned

    @property
    def is_refused(self) -> bool:
        """Whether it has refused the message."""
        return self._stream.outcome is not None

    def verdict(self) -> Decision:
        """Return what it has decided, when its taps are done. May switch greenlets."""
        for tap in self._taps:
            tap.join(until_done=True)
        if self._stream.outcome is not None:
            return self._stream.outcome
        return BYPASS if self._is_bypass else PROCEED

    def attach(self, source: Iterator[Batch]) -> Iterator[Batch]:
        """Put it behind the stages before it."""
        member = self._member
        if self._observer is not None:
            return self._observer.watch(self._view, source) if member.has_data else source
        if member.taps:
            self._taps = [
                Tap(self._calls, self._real, handler, self._view, self._stream)
                for handler in member.taps
            ]
            source = self._tapped(source)
        if member.data is None:
            return source
        kind, handler = member.data
        if kind == "message":
            return self._whole(source, handler)
        make = self._each_line if kind == "data_line" else self._generated
        return self._edited(source, handler, make)

    def close(self) -> None:
        """Free what is held; the message is over, or this stage of it is."""
        for tap in self._taps:
            tap.cancel()
        for spool in self._spools:
            spool.close()

    # Kinds of handlers

    def _tapped(self, source: Iterator[Batch]) -> Iterator[Batch]:
        for batch in source:
            for tap in self._taps:
                tap.put(stuff(batch), False)
            yield batch
        for tap in self._taps:
            tap.put([], True)

    def _each_line(self, handler: Handler, source: Iterator[Batch]) -> Iterator[Batch]:
        def edit(batch: Batch) -> Batch:
            out: Batch = []
            for line in batch:
                result = handler.fn(self._ctx, line)
                if result is None:
                    out.append(line)
                elif result is not DROP:
                    out.extend(as_lines(result))
            return out

        for batch in source:
            if self._calls.is_threaded(handler):
                yield self._calls.run(self._runner, handler, self._view, edit, batch)
            else:
                yield edit(batch)

    def _generated(self, handler: Handler, source: Iterator[Batch]) -> Iterator[Batch]:
        generator = handler.fn(self._ctx, self._unbatched(source))
        if not hasattr(generator, "__next__"):
            raise TypeError(f"returned {type(generator).__name__}; a lines handler yields lines")
        runner, turn = self._runner, self._runner.turn
        batch: Batch = []
        size = 0
        while True:
            try:
                line = next(generator)
            except StopIteration as stop:
                self._value = stop.value
                break
            if type(line) is not bytes or b"\n" in line:
                line = as_line(line)
            batch.append(line)
            size += len(line)
            if len(batch) >= _BATCH_LINES or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
            if turn.missed:
                runner.give_turn()
        yield batch

    def _unbatched(self, source: Iterator[Batch]) -> Iterator[bytes]:
        for batch in source:
            self._rest = iter(batch)
            yield from self._rest

    def _whole(self, source: Iterator[Batch], handler: Handler) -> Iterator[Batch]:
        spool = self._spool()
        try:
            for batch in source:
                spool.append(batch)
        except MessageError as error:
            self._answers.lose_message(self._view, self._stream, handler, error)
            self._end_later(source)
        out: Iterable[Batch] = ()
        message = Message(spool, compute=partial(self._calls.compute, self._view))
        try:
            result = self._calls.run(
                self._runner, handler, self._view, handler.fn, self._ctx, message
            )
            lines = lines_of(message, result)
            if lines is None:
                self._decide(handler, result)
            out = spool.batches() if lines is None else lines  # as it came, where it is let pass
        except SessionClosed:
            raise
        except BaseException as error:
            self._fail(handler, error, False)
            out = spool.batches()
        if self.is_refused:
            self._end_later(source)
        yield from out

    # What all that edit line by line have in common

    def _edited(
        self,
        source: Iterator[Batch],
        handler: Handler,
        make: Callable[[Handler, Iterator[Batch]], Iterator[Batch]],
    ) -> Iterator[Batch]:
        is_held = handler.on_error.kind not in ("reject", "disconnect")
        original, edited = self._spool(), self._spool()
        inner = make(handler, self._input(source, original if is_held else None))
        has_left = False
        while True:
            try:
                batch = self._step(handler, inner)
                if batch is not None and is_held:
                    edited.append(batch)
            except SessionClosed:
                raise
            except MessageError as error:
                self._answers.lose_message(self._view, self._stream, handler, error)
                self._end_later(source)
            except BaseException as error:
                if self._runner.abandoned:
                    raise
                self._fail(handler, error, has_left)
                if not self.is_refused:
                    yield from self._unedited(source, original)
                    return
                self._end_later(source)
            if batch is None:
                break
            if batch and not is_held:
                has_left = True
                yield batch
        if self._value is not None:
            self._decide(handler, self._value)
        if self.is_refused:
            self._end_later(source)
        yield from edited.batches()
        yield list(self._rest)  # what a generator has left passes unchanged
        yield from source

    def _unedited(self, source: Iterator[Batch], original: Spool) -> Iterator[Batch]:
        """Yield the message as it came."""
        yield from original.batches()
        yield from source

    def _step(self, handler: Handler, inner: Iterator[Batch]) -> Batch | None:
        """Run the author's code for one more batch, with its deadline running."""
        self._enter(handler)
        try:
            return next(inner, None)
        finally:
            self._leave()

    def _input(self, source: Iterator[Batch], original: Spool | None) -> Iterator[Batch]:
        """Yield what comes to the author's code; its deadline stands still while it waits."""
        while True:
            handler = self._runner.running
            self._leave()
            try:
                batch = next(source, None)
            finally:
                self._enter(handler)
            if batch is None:
                return
            if original is not None:
                original.append(batch)
            self._pulled += 1
            if self._pulled % _BATCHES_PER_DEADLINE == 0:
                self._spent = 0.0
                self._runner.since = self._calls.clock()
            yield batch

    def _enter(self, handler: Handler) -> None:
        self._outer = self._runner.running
        self._runner.begin(handler, self._calls.clock() - self._spent)

    def _leave(self) -> None:
        now = self._calls.clock()
        self._spent = now - self._runner.since
        self._runner.begin(self._outer, now)

    def _spool(self) -> Spool:
        spool = Spool(max_bytes=self._calls.app.max_message_bytes)
        self._spools.append(spool)
        return spool

    def _decide(self, handler: Handler, decision: Any) -> None:
        if isinstance(decision, Decision) and decision == BYPASS:
            self._is_bypass = True
            return
        self._answers.decide_message(self._view, self._stream, handler, decision)

    def _fail(self, handler: Handler, error: BaseException, has_left: bool) -> None:
        if has_left:
            self._answers.guard.decide_commit(self._stream, TEMPFAIL)
            then = "a part had left it, so commit is refused"
            self._answers.log_failure(self._view, handler, error, then)
        else:
            self._answers.fail_message(self._view, self._stream, handler, error)

    def _end_later(self, source: Iterator[Batch]) -> None:
        """Show the earlier stages the rest of the message, and end the later ones.

        Raises:
            SessionClosed: always; it ends the later stages.
        """
        for _ in source:
            pass
        raise SessionClosed(_REFUSED)


def _batches(lines: Iterator[bytes]) -> Iterator[Batch]:
    batch: Batch = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if len(batch) >= _BATCH_LINES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


__all__ = ["Pipeline"]
