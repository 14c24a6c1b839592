"""What smtpd accepts from a filter, written down without greenfilter's own code.

Sources: smtpd-filters(7), lka_filter.c, and the recordings of what killed smtpd (``misbehave-*``).
"""

from __future__ import annotations

import re
from collections import defaultdict

_ID = rb"[0-9a-f]{16}"
_REPLY = rb"[45][0-9]{2} [^\r\n\0]+"
_FORMS = {
    b"proceed": rb"proceed",
    b"junk": rb"junk",
    b"reject": rb"reject\|" + _REPLY,
    b"disconnect": rb"disconnect\|" + _REPLY,
    b"rewrite": rb"rewrite\|[^\r\n\0]+",
    b"report": rb"report\|[^\r\n\0]+",
}
_RESULT = re.compile(rb"filter-result\|(%b)\|(%b)\|(%b)" % (_ID, _ID, b"|".join(_FORMS.values())))
_DATA_LINE = re.compile(rb"filter-dataline\|(%b)\|(%b)\|([^\n\0]*)" % (_ID, _ID))
_OUTSIDE_COMMIT = (b"proceed", b"reject", b"disconnect", b"report")
_BRACKETED = re.compile(rb"rewrite\|<")
_REPORTING = (b"connect", b"data", b"commit")
_REWRITING = (b"helo", b"ehlo", b"auth", b"mail-from", b"rcpt-to")


class Illegal(AssertionError):
    """smtpd would die, hang, or cut the client."""


class Asked:
    """A request that smtpd waits for."""

    def __init__(self, phase: bytes, version: tuple[int, int]) -> None:
        self.phase = phase
        self.version = version


class Message:
    """A message whose lines smtpd takes until the final dot, or until it goes on without."""

    def __init__(self, version: tuple[int, int]) -> None:
        self.most = 2_047 if version < (0, 7) else 64_000
        self.ended = False  # smtpd has asked for the final dot


class Judge:
    """Keeps what smtpd asked and checks what it is told, line by line."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[bytes, bytes], list[Asked]] = defaultdict(list)
        self.open: dict[tuple[bytes, bytes], list[Message]] = defaultdict(list)
        self._unread = b""

    def asks(self, data: bytes) -> None:
        """Note every request in what smtpd writes, cut anywhere."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        before = b""  # the data line before
        for line in lines:
            line = _completed(before, line)
            parts = line.split(b"|", 7)
            before = line if parts[0] == b"filter" and parts[4:5] == [b"data-line"] else b""
            if parts[0] != b"filter" or len(parts) < 7:
                continue
            version, phase, sid, token = parts[1], *parts[4:7]
            if not re.fullmatch(_ID + rb"\|" + _ID, sid + b"|" + token):
                continue  # nobody could answer this one
            who, at = (sid, token), _version(version)
            if at < (0, 5):
                who = (token, sid)
            if phase == b"data-line":
                self._line_asked(sid, who, at, line)
            else:
                self.waiting[who].append(Asked(phase, at))
                for other, messages in self.open.items():
                    if sid in other and messages and not messages[-1].ended:
                        messages.pop()

    def _line_asked(
        self, sid: bytes, who: tuple[bytes, bytes], at: tuple[int, int], line: bytes
    ) -> None:
        # smtpd has one token for all data lines: with another, it is the same message.
        for other, messages in self.open.items():
            if sid in other and messages and not messages[-1].ended:
                who = other
        messages = self.open[who]
        if not messages or messages[-1].ended:
            messages.append(Message(at))
        messages[-1].ended = line.split(b"|", 7)[7:] == [b"."]

    def told(self, data: bytes) -> None:
        """Check what the filter wrote.

        Raises:
            Illegal: a line that smtpd does not take at all, or not now.
        """
        if data and not data.endswith(b"\n"):
            raise Illegal(f"no whole line: {data[-80:]!r}")
        for line in data.split(b"\n")[:-1]:
            if match := _RESULT.fullmatch(line):
                self._result(line, (match[1], match[2]), match[3])
            elif match := _DATA_LINE.fullmatch(line):
                self._data_line(line, (match[1], match[2]), match[3])
            else:
                raise Illegal(f"not a line of a filter: {line[:200]!r}")

    def _result(self, line: bytes, who: tuple[bytes, bytes], decision: bytes) -> None:
        if not self.waiting[who]:
            raise Illegal(f"nobody asked: {line[:200]!r}")
        asked = self.waiting[who].pop(0)
        kind = decision.partition(b"|")[0]
        problems = [
            asked.phase == b"commit" and kind not in _OUTSIDE_COMMIT,
            asked.phase == b"connect" and kind == b"reject",
            kind == b"rewrite" and asked.phase not in _REWRITING,
            kind == b"report" and (asked.phase not in _REPORTING or asked.version < (0, 7)),
            kind == b"rewrite"
            and asked.phase in (b"mail-from", b"rcpt-to")
            and not _BRACKETED.match(decision),
            len(line) > (2_047 if asked.version < (0, 7) else 16_384),
        ]
        if any(problems):
            raise Illegal(f"at {asked.phase!r} in {asked.version}: {line[:200]!r} {problems}")

    def _data_line(self, line: bytes, who: tuple[bytes, bytes], content: bytes) -> None:
        messages = self.open[who]
        if not messages:
            raise Illegal(f"outside of a message: {line[:200]!r}")
        if len(line) > messages[0].most:
            raise Illegal(f"{len(line)} bytes would be cut: {line[:200]!r}")
        if content == b".":
            messages.pop(0)

    def unanswered(self) -> int:
        """How many requests smtpd still waits for, data lines aside."""
        return sum(map(len, self.waiting.values()))


def _completed(before: bytes, line: bytes) -> bytes:
    """Give a line that goes on where a data line was, with the fields that are not looked at.

    These are the ones before the subsystem: greenfilter compares the others, which costs a third.
    """
    parts = before.split(b"|", 7)
    if len(parts) < 8:
        return line
    start, end = len(b"|".join(parts[:3])), len(b"|".join(parts[:7])) + 1
    return before[:start] + line[start:] if line[start:end] == before[start:end] else line


def _version(raw: bytes) -> tuple[int, int]:
    match = re.fullmatch(rb"([0-9]+)\.([0-9]+)", raw)
    return (int(match[1]), int(match[2])) if match and len(raw) < 8 else (0, 7)
