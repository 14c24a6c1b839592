"""Reading recordings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError

_LINE = re.compile(rb"(?:(\d+\.\d+) )?([<>#]) (.*)\Z", re.DOTALL)
_LEAST_WORDS = {b"config": 2, b"report": 6, b"filter": 8}


class UnreadableLog(UsageError):
    """A file is not a recording. The text begins with ``file:line``, or ``file`` alone."""


@dataclass(slots=True)
class Entry:
    """A line of a recording.

    Args:
        where: ``file:line``.
        size: bytes that it takes in the file.
        time: when it passed (seconds since 1970); None where the recording does not tell.
        from_smtpd: smtpd wrote it, not the filter.
        line: as it was on the wire, without LF.
    """

    where: str
    size: int
    time: float | None
    from_smtpd: bool
    line: bytes


def read(logs: Sequence[str]) -> Iterator[Entry]:
    """Read recordings, the oldest first.

    Args:
        logs: files. Those of one recorder may come in any order, as ``*`` gives them.

    Raises:
        UnreadableLog: a file cannot be read, or a line of it does not belong in a recording.
    """
    for log in sorted(logs, key=_begin):
        yield from _entries(log)


def _begin(log: str) -> float:
    """Return when the first thing happened after the handshake; 0 if nothing has."""
    for entry in _entries(log):
        if entry.from_smtpd and entry.time and not entry.line.startswith(b"config|"):
            return entry.time
    return 0.0


def _entries(log: str) -> Iterator[Entry]:
    try:
        with Path(log).open("rb") as file:
            for number, raw in enumerate(file, 1):
                entry = _entry(f"{log}:{number}", raw)
                if entry is not None:
                    yield entry
    except OSError as error:
        raise UnreadableLog(f"{log}: {error.strerror}") from error


def _entry(where: str, raw: bytes) -> Entry | None:
    found = _LINE.match(raw.removesuffix(b"\n"))
    cut_short = not raw.endswith(b"\n")
    if found is None:
        if cut_short:
            return None
        raise UnreadableLog(f"{where}: neither 'TIME < line' nor 'TIME > line': {raw[:100]!r}")
    written, mark, line = found.groups()
    if mark == b"#" or (written and cut_short):
        return None
    time = float(written) if written else None
    if mark == b"<":
        words = line.split(b"|")
        if len(words) < _LEAST_WORDS.get(words[0], 1 << 30):
            raise UnreadableLog(f"{where}: not a line of smtpd's: {line[:100]!r}")
        if time is None and words[0] != b"config":
            time = _time_of(where, words[2])
    return Entry(where, len(raw), time, mark == b"<", line)


def _time_of(where: str, word: bytes) -> float:
    try:
        return float(word)
    except ValueError:
        raise UnreadableLog(f"{where}: not a time: {word[:100]!r}") from None
