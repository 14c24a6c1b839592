"""The development server says what the real servers said, to the client and to the filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from greenfilter.protocol._credentials import redact_auth, redact_command
from tests.testing.recordings import LOGS, SERVERS, TRANSCRIPTS
from tests.testing.replaying import Line, Recorded, normal, split
from tests.testing.test_oracle_recordings import expected

from .dialogues import play, said, steps
from .serving import serving

if TYPE_CHECKING:
    from pathlib import PurePath

# What a client of the development server cannot cause, or what cannot be played, and why.
LEFT_OUT = {
    "addresses": "clients from many addresses, where --src gives one; DNS servers that misbehave",
    "junk-session-and-message": "clients from two addresses, where --src gives one",
    "dns-timeout": "a DNS server that does not answer",
    "builtin-report": "a builtin filter of smtpd stands before ours",
    "rejected": "smtpd.conf refuses recipients, here all are taken",
    "too-many-rcpts": "smtpd.conf sets a limit of 3 recipients",
    "message-too-big": "the recording abridges the message",
    "line-lengths": "the recording abridges the message",
    "never-answers": "the recorded server is stopped; see test_faults.py",
    "misbehave-exit": "the recorded server ends; see test_faults.py",
    "misbehave-unknown-session": "a filter that writes more than answers; see tests/testing",
    "shutdown-with-open-sessions": "the recorded server is stopped; see test_command.py",
    "smtpd-6.8.0p2/auth-plain": "6.8 takes a password of one letter for a syntax error",
}
# Differences in what is said to the filter, and why.
DATA_LINES_DIFFER = {
    "pipelining": "lines of a message that is refused at once come or not, by chance",
    "held-data": "the client leaves before the recorded server has sent its header lines",
}
SIZE_DIFFERS = {"starttls-tls12": "the throw-away certificate has another kind of key"}
USERS = {"alice": "secret", "bob": "pa|ss"}


def _played() -> list[PurePath]:
    logs = []
    for log in LOGS:
        server, name = str(log.parent), log.name.removesuffix(".log")
        has_client = (TRANSCRIPTS / server / f"{name}.client").exists()
        left_out = name in LEFT_OUT or f"{server}/{name}" in LEFT_OUT
        if has_client and not (left_out or name.startswith("out-") or expected(server, name)):
            logs.append(log)
    return logs


def _options(server: str, recorded: Recorded) -> dict[str, Any]:
    first = next(iter(recorded.sessions.values()))
    connect = next((words for words in first if words[1] == "link-connect"), None)
    fields = connect[3] if connect else "client.example.net|pass|192.0.2.10:4711|"
    rdns, _, src, _ = fields.rsplit("|", 3)
    return {
        "version": "{}.{}".format(*SERVERS[server]),
        "src": src.rpartition(":")[0].strip("[]"),
        "rdns": rdns,
        "users": USERS if recorded.auth else {},
        "auth_required": recorded.auth,
        "starttls": recorded.starttls,
    }


def _hidden(parameter: str) -> str:
    return redact_auth(parameter.encode("utf-8", "surrogateescape")).decode()


def _without_chance(name: str, session: list[Line]) -> tuple[list[str], list[str]]:
    """A session without ids, times, ports, addresses of the server, credentials, differences."""
    lines = []
    for words in session:
        words = list(words)
        if words[1] == "link-connect":
            rdns, fcrdns, src, _ = words[3].rsplit("|", 3)
            words[3] = "|".join([rdns, fcrdns, src.rpartition(":")[0]])
        elif words[:2] == ["filter", "auth"]:
            words[4] = _hidden(words[4])
        elif words[1] == "filter-response" and words[3].startswith("auth|rewrite|"):
            words[3] = f"auth|rewrite|{_hidden(words[3][13:])}"
        elif words[1] == "protocol-client":
            said = "|".join(words[3:]).encode("utf-8", "surrogateescape")
            words[3:] = [redact_command(said).decode("utf-8", "surrogateescape")]
        elif words[1] == "tx-commit" and name in SIZE_DIFFERS:
            words[3] = words[3].partition("|")[0]
        words[-1] = words[-1].replace("ECDHE-ECDSA", "ECDHE-RSA")
        lines.append(words)
    others, data = normal(lines)
    return others, [] if name in DATA_LINES_DIFFER else data


@pytest.mark.parametrize("log", _played(), ids=str)
def test_the_same_replies_and_the_same_lines_to_the_filter_as_recorded(log):
    server, name = str(log.parent), log.name.removesuffix(".log")
    recorded = Recorded(server, name)
    todo = list(steps(server, name))
    timeout = {"session_timeout": 1} if name.startswith("timeout") else {}
    with serving(recorded.tap(), **_options(server, recorded), **timeout) as served:
        replies = play(served.port, todo)
        served.wait_for(
            "the end of all sessions", lambda: len(served.events("disconnected")) == len(replies)
        )
    played: dict[str, list[Line]] = {}
    for event in served.events("protocol"):
        line = event["line"].encode("utf-8", "surrogateescape")
        if event["direction"] == "<" and line.startswith((b"report|", b"filter|")):
            words = split(line)
            played.setdefault(words[2], []).append(words)
    for client, lines in replies.items():
        texts = [said(step.text) for step in todo if step[:2] == (client, "S:")]
        assert lines == texts
    assert len(played) == len(recorded.sessions)
    for theirs, ours in zip(recorded.sessions.values(), played.values(), strict=True):
        assert _without_chance(name, ours) == _without_chance(name, theirs)
