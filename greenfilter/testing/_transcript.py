"""What smtpd and the filter said, for people to read."""

from __future__ import annotations

from collections.abc import Iterable

from ..protocol._credentials import redact

_MAX_SHOWN = 200


def transcript(trace: Iterable[tuple[str, bytes]], last: int | None = None) -> str:
    """Write a trace as text, a line each: ``<`` from smtpd, ``>`` from the filter.

    Long lines are cut, and the credentials of AUTH are left out.

    Args:
        trace: ``(direction, line)``.
        last: how many lines at most, the last ones; None for all.
    """
    lines = list(trace)
    left_out = 0 if last is None else max(0, len(lines) - last)
    shown = [f"... {left_out} lines before"] if left_out else []
    shown += [f"{direction} {_readable(line)}" for direction, line in lines[left_out:]]
    return "\n".join(shown)


def _readable(line: bytes) -> str:
    line = redact(line)
    cut = "..." if len(line) > _MAX_SHOWN else ""
    return line[:_MAX_SHOWN].decode("utf-8", "backslashreplace").replace("\r", "\\r") + cut
