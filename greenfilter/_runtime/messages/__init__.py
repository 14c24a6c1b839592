"""One file for each kind of handler that reads a message."""

from __future__ import annotations

from ...protocol import Stream
from ..calls import Calls
from .consumer import Consumer
from .each_line import EachLine
from .generator import Generator
from .handled import HandledConsumer
from .raw_lines import RawLines
from .whole_message import WholeMessage

_KINDS: dict[str, type[HandledConsumer]] = {
    "data_line": EachLine,
    "lines": Generator,
    "message": WholeMessage,
    "raw_line": RawLines,
}


def begin_message(calls: Calls, stream: Stream) -> Consumer:
    """Make the consumer that the filter's handlers ask for."""
    if calls.registry.data is None:
        return Consumer(calls, stream)
    kind, handler = calls.registry.data
    return _KINDS[kind](calls, stream, handler)
