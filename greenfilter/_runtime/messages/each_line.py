"""``filter.data_line``: the handler is called for every line."""

from __future__ import annotations

from collections.abc import Iterator

from ...protocol import DROP, Chunk
from ...protocol._stuffing import stuff, unstuff_line
from ..runners import Runner
from .handled import HandledConsumer
from .lines import as_lines


class EachLine(HandledConsumer):
    """``filter.data_line``: the handler is called for every line."""

    def take(self, runner: Runner, chunk: Chunk) -> None:
        """Handle a run of lines. May switch greenlets."""
        lines = self.open(chunk)
        if not self.failed:
            rest = iter(lines)
            out: list[bytes] = []
            threaded = self.calls.is_threaded(self.handler)
            try:
                self.call(runner, self._edit, runner, rest, out)
            except BaseException as error:
                self.fail(error)
                # A thread that passed its deadline is still at it, with one line in hand.
                threaded = threaded or self.calls.is_threaded(self.handler)
                lines = lines if threaded else [*out, *rest]
            else:
                lines = out
        self.write(lines, chunk.ended)

    def _edit(self, runner: Runner, lines: Iterator[bytes], out: list[bytes]) -> None:
        fn, ctx, keep, turn = self.handler.fn, self.ctx, out.append, runner.turn
        for line in lines:
            try:
                result = fn(ctx, unstuff_line(line))
                if result is None:
                    keep(line)
                elif result is not DROP:
                    out.extend(stuff(as_lines(result)))
            except BaseException:
                keep(line)
                raise
            if turn.missed:
                runner.give_turn()
