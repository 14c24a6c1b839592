"""What a replay found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from ...protocol._credentials import redact_auth

_MAX_SHOWN = 300


@dataclass(slots=True)
class Request:
    """A request of the recording, and what became of it. A message is one request, data-line.

    Args:
        session_id, client: of the session; who connected, as far as the recording tells.
        phase, parameter: what was asked, without a password. A message has no parameter.
        asked, answered: when, in the recording (seconds since 1970); None where it does not tell.
        recorded: the recorded answer, None if there was no answer.
        began, ended: when, in the replay (seconds since it began).
        decision: the answer in the replay; None if none was waited for.
        lines: of the message, as the client sent it.
        fault: why smtpd does not take the answer, if it does not.
    """

    session_id: str
    client: str
    phase: str
    parameter: bytes
    asked: float | None
    began: float
    answered: float | None = None
    ended: float | None = None
    recorded: bytes | None = None
    decision: bytes | None = None
    lines: int = 0
    fault: str = ""

    @property
    def changed(self) -> bool:
        """Whether the filter decided otherwise than the recorded one."""
        return None not in (self.recorded, self.decision) and self.recorded != self.decision


@dataclass(slots=True)
class Result:
    """What a replay found.

    Attributes:
        sessions, requests, messages: how many were played.
        left_out: sessions that began before the recording.
        differences: requests that were decided otherwise, in order.
        trouble: what real smtpd would not have forgiven, and belongs to no request.
        notes: what the recording cannot tell about this filter.
        timeline: all requests, or None if they are not wanted.
        clients: who connected, by session id, of all that were played.
        log: the last of what the filter wrote to its standard error.
    """

    sessions: int = 0
    requests: int = 0
    messages: int = 0
    left_out: int = 0
    differences: list[Request] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    timeline: list[Request] | None = None
    clients: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return one line that tells it all."""
        changed = len({request.session_id for request in self.differences})
        text = (
            f"{_count(self.sessions, 'session')}, {_count(self.requests, 'request')}, "
            f"{_count(self.messages, 'message')}: {_count(len(self.differences), 'difference')}"
        )
        return f"{text} in {_count(changed, 'session')}" if changed else text

    def observed(self) -> list[str]:
        """Return what the filter would have done differently, then troubles and notes."""
        lines: list[str] = []
        for request in self.differences:
            client = f" ({request.client})" if request.client else ""
            what = f"{request.phase} {readable(request.parameter)}".strip()
            fault = f" ({readable(request.fault.encode())})" if request.fault else ""
            lines.append(
                f"session {request.session_id}{client}, {what}: "
                f"{readable(request.recorded or b'')}, would be {readable(request.decision or b'')}"
                f"{fault}"
            )
        return lines + self._ending()

    def report(self) -> list[str]:
        """Return the differences, troubles and notes, as lines to read."""
        lines: list[str] = []
        seen: set[str] = set()
        for request in self.differences:
            client = f" ({request.client})" if request.client else ""
            what = f"{request.phase} {readable(request.parameter)}".strip()
            later = "  [after the first of this session]" if request.session_id in seen else ""
            seen.add(request.session_id)
            lines += [
                f"session {request.session_id}{client}, {what}{later}",
                f"    recorded: {readable(request.recorded or b'')}",
                f"    now:      {readable(request.decision or b'')}",
            ]
            if request.fault:
                lines.append(f"    smtpd:    {readable(request.fault.encode())}")
        return lines + self._ending()

    def _ending(self) -> list[str]:
        lines = [f"smtpd would not forgive this: {text}" for text in self.trouble]
        lines += self.notes
        if self.left_out:
            left_out = _count(self.left_out, "session")
            lines.append(f"not played, as the recording begins later: {left_out}")
        return lines


def without_password(phase: str, text: bytes) -> bytes:
    """Return a parameter, or a decision, of a phase without what only smtpd may know."""
    if phase != "auth":
        return text
    word, bar, parameter = text.partition(b"|")
    if bar:
        parameter = redact_auth(parameter, keep_user=True) if word == b"rewrite" else parameter
        return word + bar + parameter
    return redact_auth(text, keep_user=True) if b" " in text else text


def message_difference(before: Sequence[bytes], after: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Describe how the message that the recorded filter let pass differs from this one's."""
    if before == after:
        return b"the same message", b"the same message"
    pairs = enumerate(zip_longest(before, after), 1)
    number, (old, new) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
    return _describe(len(before), number, old), _describe(len(after), number, new)


def _describe(count: int, number: int, line: bytes | None) -> bytes:
    text = b"no line %d" % number if line is None else b"line %d: %b" % (number, line)
    return b"%d lines, %b" % (count, text)


def readable(text: bytes) -> str:
    """Return bytes for a terminal: what is not printable is escaped, what is long is cut."""
    cut = "..." if len(text) > _MAX_SHOWN else ""
    shown = text[:_MAX_SHOWN].decode("utf-8", "backslashreplace")
    return (
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown) + cut
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
