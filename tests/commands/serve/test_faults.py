"""What real smtpd does not forgive is said plainly, and the server goes on."""

from __future__ import annotations

import re

import pytest

from greenfilter._commands.serve import keeper
from tests.testing.driving import tap

from .dialogues import Client, Step
from .serving import Served, serving


def _dialogue(served: Served, *commands: str) -> list[str]:
    """The last line of each reply, the banner first; fewer than asked when cut."""
    client = Client(served.port)
    try:
        replies = [client.reply()]
        for command in commands:
            client.do(Step("", "C:", f"{command}\\r\\n"))
            replies.append(client.reply())
    finally:
        client.close()
    return [reply for reply in replies if reply]


def _wrong(served: Served) -> list[tuple[str, str]]:
    return [(event["effect"], event["error"]) for event in served.events("wrong")]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("print hello world", "neither filter-result nor filter-dataline"),
        (
            "!filter-result|%S|%T|proceed\nfilter-result|%S|%T|proceed",
            r"nothing is asked|token of noop",
        ),
        ("!filter-result|%S|%T|what", r"its parameter is missing"),
        ("exit 3", "its exit status was 3"),
        ("exit 0", "the filter ended"),
    ],
)
def test_what_smtpd_would_die_of_is_said_and_a_fresh_filter_serves_the_next_client(answer, reason):
    with serving(tap(answers={"mail-from": [answer]})) as served:
        first = _dialogue(served, "EHLO me", "MAIL FROM:<a@example.net>", "NOOP")
        served.wait_for("a fresh filter", lambda: len(served.events("filter-started")) == 2)
        second = _dialogue(served, "EHLO me", "NOOP", "QUIT")
    assert len(first) < 4, "the client kept its connection"
    assert second[1:] == ["250 HELP", "250 2.0.0 Ok", "221 2.0.0 Bye"]
    [(effect, error)] = _wrong(served)
    assert effect == "die"
    assert re.search(reason, error)


def test_clients_of_a_filter_that_died_are_all_disconnected():
    with serving(tap(answers={"noop": ["exit 1"]})) as served:
        idle = Client(served.port)
        assert idle.reply().startswith("220")
        _dialogue(served, "EHLO me", "NOOP")
        assert idle.reply() is None
        idle.close()


def test_a_filter_that_dies_again_when_it_is_started_leaves_a_server_that_says_so(tmp_path):
    file = tmp_path / "filter.sh"
    started = tmp_path / "started"
    file.write_text(f'#!/bin/sh\n[ -e {started} ] && exit 1\ntouch {started}\nexec "$@"\n')
    file.chmod(0o755)
    with serving([str(file), *tap(answers={"noop": ["exit 1"]})]) as served:
        _dialogue(served, "EHLO me", "NOOP")
        served.wait_for("the failed start", lambda: served.events("filter-failed"))
        assert _dialogue(served) == ["421 4.3.0 The filter does not run"]
        started.unlink()
        file.write_text(file.read_text() + "\n")
        served.wait_for("the next start", lambda: len(served.events("filter-started")) == 2)
        assert _dialogue(served)[0].startswith("220 ")
    [failed] = served.events("filter-failed")
    assert "its exit status was 1" in failed["error"]
    assert failed["goes_on"] is False


def test_a_session_that_smtpd_would_never_continue_is_ended_and_others_go_on():
    with serving(tap(answers={"commit": ["rewrite|x"]})) as served:
        hung = _dialogue(
            served,
            "EHLO me",
            "MAIL FROM:<a@example.net>",
            "RCPT TO:<b@example.org>",
            "DATA",
            r"Subject: x\r\n\r\nx\r\n.",
        )
        second = _dialogue(served, "EHLO me", "QUIT")
    assert hung[-1].startswith("354 ")
    assert second[-1] == "221 2.0.0 Bye"
    [(effect, error)] = _wrong(served)
    assert effect == "hang"
    assert "rewrite at commit" in error
    assert len(served.events("filter-started")) == 1


def test_a_client_that_smtpd_would_cut_is_cut():
    with serving(tap(answers={"ehlo": ["reject|no code"]})) as served:
        replies = _dialogue(served, "EHLO me", "NOOP")
    assert replies[1:] == ["421 Internal server error"]
    assert [effect for effect, _ in _wrong(served)] == ["cut"]


def test_decisions_of_an_old_protocol_are_those_of_an_old_server():
    with serving(tap(answers={"ehlo": ["report|something"]}), version="0.6") as served:
        _dialogue(served, "EHLO me")
        served.wait_for("the verdict", lambda: served.events("wrong"))
    assert _wrong(served)[0][0] == "die"


def test_an_answer_that_does_not_come_is_told_while_the_client_waits(monkeypatch):
    monkeypatch.setattr(keeper, "_LONG_SECONDS", 0.05)
    with serving(tap(answers={"noop": ["none"]})) as served:
        client = Client(served.port)
        assert client.reply().startswith("220 ")
        client.do(Step("", "C:", "NOOP\\r\\n"))
        served.wait_for("the note", lambda: served.events("waits"))
        client.close()
    [told] = served.events("waits")
    assert told["phase"] == "noop"
    assert served.events("wrong") == []
