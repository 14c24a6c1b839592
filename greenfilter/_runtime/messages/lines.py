"""Lines of a message that handlers make."""

from __future__ import annotations

from typing import Any


def as_line(value: Any) -> bytes:
    """Check a line that a handler has made.

    Raises:
        TypeError, ValueError: it is not one.
    """
    if not isinstance(value, (bytes, bytearray)):
        raise TypeError(f"a line is bytes, not {type(value).__name__}")
    if b"\n" in value:
        raise ValueError("a line has no LF in it; yield or return several lines")
    return bytes(value)


def as_lines(result: Any) -> list[bytes]:
    """Check one line or several. Raises as :func:`as_line`."""
    if isinstance(result, (bytes, bytearray, str)):
        return [as_line(result)]
    return [as_line(line) for line in result]
