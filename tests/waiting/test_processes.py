"""Children of handlers, and other ways to wait, in a filter under the supervisor."""

from __future__ import annotations

import sys
from pathlib import Path

import gevent
import pytest

from greenfilter.testing import FakeSmtpd

FILTER = str(Path(__file__).parent / "filters" / "waits.py")
WAYS = [
    "fork",
    "spawn",
    "raw-fork",
    "in-pty",
    "in-executor",
    "in-queue",
    "in-asyncio",
    "system",
    "child-of-its-own",
]


@pytest.fixture
def effects(tmp_path):
    return tmp_path / "effects"


def start(effects, *options):
    run = [sys.executable, "-m", "greenfilter", "run", FILTER, str(effects), *options]
    return FakeSmtpd(run, timeout=30)


def done(effects):
    return [line.split()[0] for line in effects.read_text().splitlines()]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["plain", "thread"])
def test_a_way_to_wait_works_in_both_kinds_of_handlers_and_nothing_is_done_twice(
    effects, way, where
):
    with start(effects) as smtpd:
        slow = [smtpd.connect() for _ in range(3)]
        for session in slow:
            session.ehlo("x.example")
        waiting = [smtpd.start(session.mail_from, "slow@example.com") for session in slow]
        sessions = [smtpd.connect() for _ in range(2)]
        for session in sessions:
            if where == "plain":
                session.ehlo("x.example")
        asked = [smtpd.start(ask, session, where, way) for session in sessions]
        gevent.joinall([*waiting, *asked], timeout=30)
        assert [each.value.code for each in [*waiting, *asked]] == [550] * 5, smtpd.log
    assert done(effects).count("slow") == 3
    assert done(effects).count("greeted") == (5 if where == "plain" else 3)
    assert done(effects).count("child") == (2 if way in ("fork", "raw-fork") else 0)


def ask(session, where, way):
    if where == "plain":
        return session.mail_from(f"{way}@example.com")
    return session.helo(way)


def test_a_pool_of_processes_can_be_made_at_the_top_of_the_file(effects):
    with start(effects, "--pool") as smtpd:
        session = smtpd.connect()
        session.ehlo("x.example")
        assert session.mail_from("in-pool@example.com").code == 550


def test_an_alarm_says_at_once_that_it_cannot_work(effects):
    with start(effects) as smtpd:
        session = smtpd.connect()
        session.ehlo("x.example")
        assert session.mail_from("alarm@example.com").code == 451
    assert any("set the handler deadline=SECONDS" in line for line in smtpd.log)
