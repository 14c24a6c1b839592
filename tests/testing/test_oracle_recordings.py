"""The oracle says of each recording what the real server did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from greenfilter._smtpd.oracle import (
    Answer,
    ClientCut,
    DataLine,
    EndOfData,
    SmtpdWouldDie,
    SmtpdWouldHang,
)

from .recordings import LOGS, SERVERS, TRANSCRIPTS, Judged, lines

if TYPE_CHECKING:
    from pathlib import PurePath

# The server ended during these. Reason: a word of what the oracle says.
DIED = {
    "misbehave-crlf": "parameter is missing",
    "misbehave-dataline-early": "data line in phase mail-from",
    "misbehave-double-answer": "mail-from was answered",
    "misbehave-empty-line": "neither filter-result nor",
    "misbehave-garbage-line": "hello world",
    "misbehave-proceed-with-param": "unknown decision",
    "misbehave-register-late": "after register|ready",
    "misbehave-register-report-unknown": "unknown report",
    "misbehave-register-unknown": "unknown phase",
    "misbehave-report-line": "cannot write reports",
    "misbehave-result-missing-param": "parameter is missing",
    "misbehave-result-unknown": "unknown decision",
    "misbehave-token-wrong": "the token of mail-from is",
    "fatal-commit-junk": "junk at commit",
    "data-line-after-dot": "data line in phase commit",
}
# A stray dot races: this time 6.8.0p2 died of it, and 7.8.0 cut the message short.
RACED = {"data-unstuffed-lone-dot": "a lone dot before the end"}
DIED_OF_REPORT = {
    f"decide-{phase}-report"
    for phase in ("connect", "ehlo", "mail-from", "rcpt-to", "data", "commit")
}
HUNG = {
    "decide-commit-rewrite": "rewrite at commit",
    "misbehave-token-first": "session and token are swapped",
}
# Here no line is wrong: an answer is missing.
NEVER_ANSWERED = {"never-answers": "mail-from"}
ENDED_BY_EXIT = {"misbehave-exit"}


def expected(server: str, name: str) -> tuple[type[Exception], str] | None:
    if name in DIED or name in RACED:
        return SmtpdWouldDie, (DIED | RACED)[name]
    if name in DIED_OF_REPORT and SERVERS[server] < (0, 7):
        return SmtpdWouldDie, "unknown decision"
    if name in HUNG:
        return SmtpdWouldHang, HUNG[name]
    if name == "decide-odd-messages":
        return ClientCut, "without an SMTP reply"
    return None


@pytest.mark.parametrize("log", LOGS, ids=str)
def test_judges_the_recording_as_the_server_did(log):
    server, name = str(log.parent), log.name.removesuffix(".log")
    judged = Judged(server, name)
    verdict = expected(server, name)
    if verdict is None:
        assert judged.errors == []
        assert judged.effects
    else:
        error, text = verdict
        assert type(judged.errors[0]) is error
        assert text in str(judged.errors[0])


def _answers_tell() -> list[PurePath]:
    """Recordings without a chain, where the report would not say which filter answered."""
    return [
        log
        for log in LOGS
        if ".f" not in log.name
        and not log.name.startswith("builtin")
        and expected(str(log.parent), log.stem) is None
    ]


@pytest.mark.parametrize("log", _answers_tell(), ids=str)
def test_every_answer_is_what_the_server_reports(log):
    """The server's own filter-response is the answer that the oracle understood."""
    server, name = str(log.parent), log.name.removesuffix(".log")
    answered: dict[str, list[str]] = {}
    for effect in Judged(server, name).effects:
        if isinstance(effect, Answer):
            words = [effect.kind] + [effect.parameter.decode("latin-1")] * bool(effect.parameter)
            if words[0] == "reject" and words[1].startswith("421"):
                words[0] = "disconnect"
            answered.setdefault(effect.session_id, []).append(f"{effect.phase}|{'|'.join(words)}")
    reported: dict[str, list[str]] = {}
    registered = Judged(server, name).oracle.phases
    for direction, line in lines(server, name):
        words = line.decode("latin-1").split("|", 6)
        if direction == "<" and words[3:5] == ["smtp-in", "filter-response"]:
            phase, _, rest = words[6].partition("|")
            phase = {"connected": "connect", "tls": "starttls"}.get(phase, phase)
            if phase in registered:
                reported.setdefault(words[5], []).append(f"{phase}|{rest}")
    for session_id, responses in reported.items():
        assert answered[session_id][: len(responses)] == responses


@pytest.mark.parametrize("server", SERVERS)
def test_a_session_that_is_never_answered_is_named(server):
    assert list(Judged(server, "never-answers").oracle.unanswered().values()) == ["mail-from"]


@pytest.mark.parametrize("server", SERVERS)
def test_a_filter_that_exits_leaves_its_request_open(server):
    assert list(Judged(server, "misbehave-exit").oracle.unanswered().values()) == ["mail-from"]


@pytest.mark.parametrize("server", SERVERS)
def test_each_bad_reply_text_cuts_its_client(server):
    errors = Judged(server, "decide-odd-messages").errors
    texts = {error.line.split(b"|", 4)[4] for error in errors}
    assert {type(error) for error in errors} == {ClientCut}
    assert texts == {b"foo bar", b"250 ok", b"", b"550", b"550-first", b"550 "}


_EDITED = [
    log for log in sorted(TRANSCRIPTS.glob("*/data-*.delivered")) if log.stem not in DIED | RACED
]


@pytest.mark.parametrize(
    "log",
    _EDITED,
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_the_data_lines_are_the_delivered_message(log):
    """What the filter wrote is what the receiving server got."""
    messages: list[list[bytes]] = [[]]
    for effect in Judged(log.parent.name, log.stem).effects:
        if isinstance(effect, DataLine):
            messages[-1].append(effect.line.removeprefix(b"."))
        elif isinstance(effect, EndOfData):
            messages.append([])
        elif isinstance(effect, Answer) and effect.phase == "commit" and effect.kind == "reject":
            del messages[-2]
    delivered = log.read_bytes().replace(b"\r\n", b"\n").split(b"=== MAIL FROM")[1:]
    bodies = [part.rstrip(b"\n").split(b"\n")[1:] for part in delivered]
    bodies = [[line.removeprefix(b".") for line in body] for body in bodies]
    assert [b"\n".join(lines).strip(b"\n") for lines in messages if lines] == [
        b"\n".join(body).strip(b"\n") for body in bodies if body
    ]
