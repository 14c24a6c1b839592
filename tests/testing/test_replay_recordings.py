"""FakeSmtpd writes what the real servers wrote, when the same client meets the same filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from greenfilter.testing import FakeSmtpd

from .driving import TAP
from .recordings import LOGS, SERVERS, lines
from .replaying import Line, Recorded, normal, play, split
from .test_oracle_recordings import ENDED_BY_EXIT, NEVER_ANSWERED, expected

if TYPE_CHECKING:
    from pathlib import PurePath

# What FakeSmtpd cannot be made to play from a recording, and why.
LEFT_OUT = {
    "builtin-report": "a builtin filter of smtpd stands before ours",
    "pipelining": "a client that does not wait for replies",
    "auth-plain": "the listener requires AUTH; one password is not in the recording",
    "auth-login": "the user names and passwords are not in the recording",
    "decide-auth-login": "the user names and passwords are not in the recording",
    "starttls-refused": "the listener requires STARTTLS; a client that breaks TLS",
    "message-empty": "one message is malformed, which FakeSmtpd does not look at",
    "shutdown-with-open-sessions": "smtpd is stopped first",
    "misbehave-unknown-session": "a filter that writes more than answers",
    "long-command": "a command whose text the recording does not hold",
    "line-70000": "the recording does not hold the long line",
    "message-too-big": "the recording does not hold the lines that were too many",
    "too-many-rcpts": "a limit of 3 is set in smtpd.conf",
    "held-data": "the client left before the header lines were sent",
    "filters-only": "without reports the recording does not tell the client's commands",
    "smtpd-6.8.0p2/rejected": "6.8 names a refused recipient in its Received header",
} | dict.fromkeys([*NEVER_ANSWERED, *ENDED_BY_EXIT], "the server does not end well")


def _played() -> list[PurePath]:
    logs = []
    for log in LOGS:
        server, name = str(log.parent), log.name.removesuffix(".log")
        chain = ".f" in log.name
        outgoing = name.startswith("out-")
        left_out = name in LEFT_OUT or f"{server}/{name}" in LEFT_OUT
        if not (chain or outgoing or left_out or expected(server, name)):
            logs.append(log)
    return logs


@pytest.mark.parametrize("log", _played(), ids=str)
def test_the_same_lines_as_recorded(log):
    server, name = str(log.parent), log.name.removesuffix(".log")
    recorded = Recorded(server, name)
    smtpd = FakeSmtpd(
        recorded.tap(),
        version="{}.{}".format(*SERVERS[server]),
        starttls=recorded.starttls,
        auth=recorded.auth,
    )
    with smtpd:
        for session in recorded.sessions.values():
            play(smtpd, session)
    played: dict[str, list[Line]] = {}
    for direction, line in smtpd.trace:
        if direction == "<" and line.startswith((b"report|", b"filter|")):
            words = split(line)
            played.setdefault(words[2], []).append(words)
    assert len(played) == len(recorded.sessions)
    for theirs, ours in zip(recorded.sessions.values(), played.values(), strict=True):
        assert normal(ours) == normal(theirs)


@pytest.mark.parametrize("server", SERVERS)
def test_the_same_config_lines_as_recorded(server):
    with FakeSmtpd(TAP, version="{}.{}".format(*SERVERS[server])) as smtpd:
        pass
    config = [line for _, line in lines(server, "plain") if line.startswith(b"config")]
    assert [line for _, line in smtpd.trace if line.startswith(b"config")] == config
