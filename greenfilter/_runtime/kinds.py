"""Which consumer deals with a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol import Stream
from .consumers import Consumer, EachLine, Generated, HandledConsumer, Whole
from .raw_lines import RawLines

if TYPE_CHECKING:
    from .engine import Engine

_KINDS: dict[str, type[HandledConsumer]] = {
    "data_line": EachLine,
    "lines": Generated,
    "message": Whole,
    "raw_line": RawLines,
}


def consumer_for(engine: Engine, stream: Stream) -> Consumer:
    """Begin a message: make the consumer that the filter's handlers ask for."""
    if engine.app.data is None:
        return Consumer(engine, stream)
    kind, handler = engine.app.data
    return _KINDS[kind](engine, stream, handler)
