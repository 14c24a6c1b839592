"""A recording taken apart: what the client said, what the filter answered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from greenfilter._smtpd.wire import decode

from .driving import tap
from .recordings import lines

if TYPE_CHECKING:
    from greenfilter.testing import FakeSmtpd, Session

# A line of a session: report or filter, event or phase, session id, [token], rest.
Line = list[str]


def split(raw: bytes) -> Line:
    """The words of a line from smtpd that matter."""
    words = decode(raw).split("|", 7 if raw.startswith(b"filter|") else 6)
    return [words[0], *words[4:]]


class Recorded:
    """A recording of one filter without a chain."""

    def __init__(self, server: str, name: str) -> None:
        self.register: list[str] = []
        self.sessions: dict[str, list[Line]] = {}
        self.answers: dict[str, list[tuple[str, str]]] = {}
        self.messages: dict[str, list[list[str]]] = {}
        self.starttls = self.auth = False
        self._phases: dict[str, str] = {}
        for direction, raw in lines(server, name):
            if direction == ">":
                self._written(decode(raw))
            elif raw.startswith((b"report|", b"filter|")):
                self._read(split(raw))

    def _written(self, line: str) -> None:
        words = line.split("|", 3)
        if words[0] == "register" and words[1] != "ready":
            self.register.append(line.removeprefix("register|"))
        elif words[0] == "filter-result":
            answer = (self._phases[words[1]], words[3])
            self.answers.setdefault(words[1], []).append(answer)
        elif words[0] == "filter-dataline":
            messages = self.messages.setdefault(words[1], [[]])
            messages[-1].append(words[3])
            if words[3] == ".":
                messages.append([])

    def _read(self, words: Line) -> None:
        self.sessions.setdefault(words[2], []).append(words)
        self.starttls |= words[-1] == "250-STARTTLS"
        self.auth |= words[-1].startswith("250-AUTH")
        if words[0] == "filter":
            self._phases[words[2]] = words[1]

    def tap(self) -> list[str]:
        """The command of a filter that answers as the recorded one did, session by session."""
        answers: dict[str, list[str]] = {}
        messages: list[list[str]] = []
        for session_id in self.sessions:
            for phase, decision in self.answers.get(session_id, []):
                answers.setdefault(phase, []).append(decision)
            messages += [m for m in self.messages.get(session_id, []) if "." in m]
        return tap(register=self.register, answers=answers, data="script", messages=messages)


def play(smtpd: FakeSmtpd, recorded: list[Line]) -> None:
    """Do what the client of a recorded session did."""
    events = [words[1] for words in recorded]
    connect = recorded[events.index("link-connect")]
    rdns, fcrdns, src, dst = connect[3].rsplit("|", 3)
    session = smtpd.connect(src, rdns, fcrdns, dst, smtps="link-tls" in events[:6])
    for index, words in enumerate(recorded):
        if session.closed:
            return
        if words[1] == "protocol-client" and words[3] != ".":
            _command(session, words[3], recorded[index + 1 :])
        elif words[1] == "timeout":
            session.timeout()
    if not session.closed and "link-disconnect" in events:
        session.disconnect()


def _command(session: Session, line: str, rest: list[Line]) -> None:
    events = [words[1] for words in rest]
    until = events.index("protocol-client") if "protocol-client" in events else len(rest)
    result = "ok"
    for words in rest[:until]:
        if words[1] == "link-auth":
            result = "ok" if "pass" in words[3].split("|") else "permfail"
        elif words[1] == "protocol-server" and words[3].startswith("550 Invalid recipient"):
            result = "permfail"
        elif words[:2] == ["filter", "auth"]:
            line = f"AUTH {words[4]}"
    reply = session.command(line, result)
    if line == "STARTTLS" and reply.ok:
        session.tls_started(next(words[3] for words in rest if words[1] == "link-tls"))
    elif reply.code == 354:
        session.data_lines(_client_lines(rest))
        ended = until < len(rest) and rest[until][3] == "."
        if ended and not session.closed:
            session.data_end()


def _client_lines(rest: list[Line]) -> list[bytes]:
    """The lines of the next message that are not smtpd's own header."""
    body = [words[4] for words in rest if words[:2] == ["filter", "data-line"]]
    begin = next((i for i, text in enumerate(body) if text.endswith(" (UTC)")), -1) + 1
    end = body.index(".") if "." in body else len(body)
    return [text.removeprefix(".").encode("utf-8", "surrogateescape") for text in body[begin:end]]


def normal(session: list[Line]) -> tuple[list[str], list[str]]:
    """A session without ids and times: reports and requests, and data-lines.

    The two travel by different sockets inside smtpd, so their order among each other is chance.
    """
    ids: dict[str, str] = {}
    others, data = [], []
    registered = any(words[1] == "data-line" for words in session)
    for words in session:
        fields = "|".join(words[4 if words[0] == "filter" else 3 :])
        if words[1].startswith("tx-") and fields[:8] != "00000000":
            ids.setdefault(fields[:8], f"message-{len(ids)}")
        if words[1] == "tx-envelope":
            fields = fields[:17]
        if words[1] == "tx-commit" and not registered:
            fields = fields[:8]  # the recording does not tell the message
        if words[1] == "data-line":
            fields = re.sub(r"\bid [0-9a-f]{8}", "id", fields)
            data.append(re.sub(r"^\t\w{3}, .* \(UTC\)$", "date", fields))
            continue
        for number, name in ids.items():
            fields = fields.replace(number, name)
        fields = re.sub(r"^(250 2\.0\.0) [0-9a-f]{8} ", r"\1 id ", fields)
        others.append(f"{words[0]} {words[1]} {fields}")
    return others, data
