"""What passes between smtpd and the filter, as a person wants to know it: times, and changes."""

from __future__ import annotations

import difflib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..._smtpd.wire import decode
from ...protocol._credentials import redact

# A comparison of longer messages takes too long.
_MAX_COMPARED_LINES = 1000

Trace = Callable[[str, str, str], None]


class _Lines:
    """A message: all of it as a digest, and its first lines."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b()
        self.first: list[bytes] = []

    def add(self, line: bytes) -> None:
        self.digest.update(line + b"\n")
        if len(self.first) <= _MAX_COMPARED_LINES:
            self.first.append(line)


@dataclass(slots=True)
class _Exchange:
    phase: str = ""
    asked: float = 0.0
    seconds: float | None = 0.0  # that the answer took; None: there is none yet
    told: bool = False
    given: _Lines = field(default_factory=_Lines)
    written: _Lines = field(default_factory=_Lines)


class Watch:
    """Looks at each line of the protocol.

    Args:
        trace: called with direction (``<`` from smtpd, ``>`` from the filter), line (credentials
            hidden) and session id ("" for lines of no session).
    """

    def __init__(self, trace: Trace | None = None) -> None:
        self._trace = trace
        self._sessions: dict[str, _Exchange] = {}

    def __call__(self, direction: str, line: bytes) -> None:
        """Take a line, as observer of a ``FilterLink``."""
        session_id = ""
        words = line.split(b"|", 7)
        if direction == "<" and words[0] == b"filter":
            session_id = decode(words[5])
            self._asked(self._sessions.setdefault(session_id, _Exchange()), words)
        elif direction == ">" and len(words) > 3 and words[0].startswith(b"filter-"):
            session_id = decode(words[1])
            exchange = self._sessions.get(session_id)
            if exchange:
                self._answered(exchange, line.split(b"|", 3))
        elif words[0] == b"report" and len(words) > 5:
            session_id = decode(words[5])
        if self._trace:
            self._trace(direction, decode(redact(line)), session_id)

    def seconds(self, session_id: str) -> float | None:
        """Return how long the filter took for its last answer."""
        exchange = self._sessions.get(session_id)
        return exchange.seconds if exchange and exchange.asked else None

    def unanswered(self, seconds: float) -> list[tuple[str, str]]:
        """Return session and phase of each request that has waited this long, each only once."""
        now = time.monotonic()
        waiting = []
        for session_id, exchange in self._sessions.items():
            if exchange.seconds is None and not exchange.told and now - exchange.asked > seconds:
                exchange.told = True
                waiting.append((session_id, exchange.phase))
        return waiting

    def changes(self, session_id: str) -> list[str] | None:
        """Return how the filter changed the last message: ``+ line`` and ``- line``.

        Returns:
            None for a message too long to be compared.
        """
        exchange = self._sessions.get(session_id, _Exchange())
        given, written = exchange.given, exchange.written
        exchange.given, exchange.written = _Lines(), _Lines()
        if given.digest.digest() == written.digest.digest():
            return []
        if max(len(given.first), len(written.first)) > _MAX_COMPARED_LINES:
            return None
        before, after = list(map(decode, given.first)), list(map(decode, written.first))
        lines = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
        return [f"{line[0]} {line[1:]}" for line in lines if line[0] in "+-"]

    def forget(self, session_id: str) -> None:
        """Drop a session that is over."""
        self._sessions.pop(session_id, None)

    def _asked(self, exchange: _Exchange, words: list[bytes]) -> None:
        phase, parameter = decode(words[4]), words[7]
        if phase == "data-line" and exchange.phase != "data-line":
            exchange.given, exchange.written = _Lines(), _Lines()
        exchange.phase = phase
        if phase == "data-line" and parameter != b".":
            exchange.given.add(parameter)
            return
        exchange.asked = time.monotonic()
        exchange.seconds = None
        exchange.told = False

    def _answered(self, exchange: _Exchange, words: list[bytes]) -> None:
        if words[0] == b"filter-dataline" and words[3] != b".":
            exchange.written.add(words[3])
        elif exchange.seconds is None:
            exchange.seconds = time.monotonic() - exchange.asked
