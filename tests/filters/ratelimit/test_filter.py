"""The filter in front of FakeSmtpd."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import gevent
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from greenfilter import reject
from greenfilter.filters import ratelimit
from greenfilter.filters._ratelimit.ledger import Claim, Ledger
from greenfilter.filters._ratelimit.limit import parse_limits
from greenfilter.filters._store import open_store
from greenfilter.testing import FakeSmtpd
from tests.filters.support import begin, deliver, lines, log_all, try_once
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def start(store_url: str, caplog: pytest.LogCaptureFixture) -> Callable[..., FakeSmtpd]:
    """Make a FakeSmtpd in front of the filter with some options."""
    log_all(caplog)
    return lambda *options, **more: FakeSmtpd(
        ratelimit.build(["--store", store_url, *options]), **more
    )


def test_what_is_above_the_limit_is_deferred_with_the_time_to_wait(start, caplog):
    with start("--limit", "user:recipients=3/hour") as smtpd:
        assert deliver(smtpd, recipients="a@example.org b@example.org", user="Alice").ok
        session = begin(smtpd, user="alice")
        assert session.rcpt_to("c@example.org").ok
        reply = session.rcpt_to("d@example.org")
        assert reply.rejected(450, "4.7.1 Too many recipients from this user (3 per hour); try")
        assert reply.text.endswith("minutes")
        assert session.data(b"Subject: x\n\n").ok
        assert try_once(smtpd, user="bob").ok
        assert try_once(smtpd).ok
        smtpd.clock.advance(3600)
        assert try_once(smtpd, user="alice").ok
    [line] = lines(caplog, "ratelimit")
    assert line.startswith("refuse scope=user who=alice limit=")
    for fact in ('"recipients 3 per hour"', "used=2 ", "client=192.0.2.10", "to=d@example.org"):
        assert fact in line


def test_a_client_that_waits_as_told_is_let_in(start):
    with start("--limit", "network:messages=1/minute") as smtpd:
        assert deliver(smtpd).ok
        reply = try_once(smtpd)
        assert reply.rejected(450)
        smtpd.clock.advance(int(reply.text.split()[-2]))
        assert try_once(smtpd).ok


def test_550_by_option(start):
    with start("--limit", "network:messages=1/hour", "--answer=550") as smtpd:
        assert deliver(smtpd).ok
        assert try_once(smtpd).rejected(550, "5.7.1 Too many messages from this network")


def test_networks_users_and_senders_are_counted_apart(start):
    one_each = ("network", "user", "sender")
    with start(*(f"--limit={scope}:messages=1/hour" for scope in one_each)) as smtpd:
        assert deliver(smtpd, sender="a@example.net").ok
        assert deliver(smtpd, sender="b@example.net").rejected(450, "network")
        assert deliver(smtpd, "192.0.2.11:1", sender="A@example.net").rejected(450, "sender")
        assert deliver(smtpd, "192.0.2.11:1", sender="b@example.net").ok
        assert deliver(smtpd, sender="c@example.net", user="u").ok  # no network limit
        assert deliver(smtpd, sender="d@example.net", user="U").rejected(450, "user")
        assert deliver(smtpd, "[2001:db8::1]:1", sender="").ok
        assert deliver(smtpd, "[2001:db8::2]:1", sender="").rejected(450, "network")
        assert deliver(smtpd, "[2001:db8:0:1::2]:1", sender="").ok  # bounces have no sender


def test_this_host_has_no_network_limit_and_local_networks_have_none_at_all(start):
    limits = ["--limit=network:messages=1/hour", "--limit=sender:messages=3/hour"]
    with start(*limits, "--local=203.0.113.0/24") as smtpd:
        for _ in range(2):
            assert deliver(smtpd, "203.0.113.5:1").ok
            assert deliver(smtpd, "127.0.0.1:1", sender="x@example.net").ok
        assert deliver(smtpd, "unix:/var/run/smtpd.sock", sender="x@example.net").ok
        assert deliver(smtpd, "unix:/var/run/smtpd.sock", sender="x@example.net").rejected(450)


def test_refused_recipients_reset_and_left_transactions_do_not_count(start):
    with start("--limit", "user:recipients=2/day", "--limit", "user:messages=3/day") as smtpd:
        session = begin(smtpd, user="alice")
        for _ in range(3):
            assert session.rcpt_to("nobody@example.org", result="permfail").rejected(550)
        assert session.rcpt_to("a@example.org").ok
        assert session.rcpt_to("b@example.org").ok
        assert session.rcpt_to("c@example.org").rejected(450)
        session.rset()
        session.mail_from("alice@example.net")
        assert session.rcpt_to("a@example.org").ok
        session.data_begin()
        session.disconnect()
        session = begin(smtpd, user="alice")
        assert session.rcpt_to("a@example.org").ok
        session.timeout()
        assert deliver(smtpd, recipients="a@example.org b@example.org", user="alice").ok
        assert try_once(smtpd, user="alice").rejected(450)


def test_what_smtpd_refuses_at_the_end_does_not_count(start):
    with start("--limit", "user:messages=1/day", max_message_bytes=1000) as smtpd:
        session = begin(smtpd, user="alice")
        session.rcpt_to("a@example.org")
        assert session.data(b"Subject: x\n\n" + b"too much\n" * 200).code >= 500
        session.quit()
        assert deliver(smtpd, user="alice").ok
        assert try_once(smtpd, user="alice").rejected(450)


def test_sessions_at_the_same_time_cannot_pass_a_limit_together(start):
    with start("--limit", "user:recipients=5/day") as smtpd:
        sessions = [begin(smtpd, user="alice") for _ in range(12)]
        jobs = [smtpd.start(each.rcpt_to, "bob@example.org") for each in sessions]
        gevent.joinall(jobs, timeout=20)
        granted = [each for each, job in zip(sessions, jobs, strict=True) if job.value.ok]
        assert len(granted) == 5
        assert granted[0].data(b"Subject: x\n\n").ok
        granted[1].disconnect()
        assert begin(smtpd, user="alice").rcpt_to("bob@example.org").ok
        assert begin(smtpd, user="alice").rcpt_to("bob@example.org").rejected(450)


def test_bytes_are_counted_at_the_end_of_a_message(start):
    body = b"Subject: x\n\n" + b"x" * 70 + b"\n"
    with start("--limit", "sender:bytes=1000/hour") as smtpd:
        replies = [deliver(smtpd, message=body) for _ in range(6)]
        refused = [reply for reply in replies if not reply.ok]
        assert refused
        assert all(reply.rejected(450, "Too many bytes from this sender") for reply in refused)
        assert len(smtpd.messages) == replies.index(refused[0])
        assert sum(len(each.data) for each in smtpd.messages) <= 1000
        assert deliver(smtpd, sender="o@example.net", message=b"x" * 2000).rejected(
            552, "5.3.4 Message is larger than what this sender may send"
        )
        smtpd.clock.advance(3600)
        assert deliver(smtpd, message=body).ok


def test_who_has_no_bytes_left_is_refused_before_the_message(start):
    with start("--limit", "sender:bytes=600/hour") as smtpd:
        while (reply := deliver(smtpd, message=b"x" * 50)).ok:
            pass
        assert reply.rejected(450)
        with_room = begin(smtpd).rcpt_to("bob@example.org")
        assert with_room.code in (250, 450)


def test_more_recipients_than_a_limit_in_one_message_are_to_come_later(start):
    with start("--limit", "user:recipients=2/hour") as smtpd:
        session = begin(smtpd, user="alice")
        assert session.rcpt_to("a@example.org").ok
        assert session.rcpt_to("b@example.org").ok
        assert session.rcpt_to("c@example.org").rejected(450, "try again in 60 minutes")
        assert session.data(b"Subject: x\n\n").ok


def test_several_limits_hold_at_once(start):
    with start("--limit", "user:messages=2/minute,3/hour") as smtpd:
        assert deliver(smtpd, user="alice").ok
        assert deliver(smtpd, user="alice").ok
        assert deliver(smtpd, user="alice").rejected(450, "2 per minute")
        smtpd.clock.advance(61)
        assert deliver(smtpd, user="alice").ok
        assert deliver(smtpd, user="alice").rejected(450, "3 per hour")


def test_log_only_counts_and_lets_all_pass(start, caplog):
    with start("--limit", "user:messages=1/day", "--log-only") as smtpd:
        for _ in range(3):
            assert deliver(smtpd, user="alice").ok
    told = lines(caplog, "ratelimit")
    assert [line.split(" scope")[0] for line in told] == ["refuse log-only=yes"] * 2
    assert "used=2" in told[1]


TELL = """
import json, os, sys
facts = json.load(sys.stdin)
assert os.environ["RATELIMIT_WHO"] == facts["who"]
assert os.environ["RATELIMIT_USER"] == (facts["user"] or "")
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(facts) + "\\n")
"""


def test_the_administrator_is_told_once_for_each_key_and_period(start, tmp_path: Path):
    script, told = tmp_path / "tell me.py", tmp_path / "told"
    script.write_text(TELL)
    told.touch()

    def wait_for(count: int) -> list[dict[str, object]]:
        wait_until(lambda: told.read_text().count("\n") >= count, 10.0, "the administrator")
        return [json.loads(line) for line in told.read_text().splitlines()]

    notify = f"{sys.executable} '{script}' {told}"
    options = ["--limit", "user:messages=1/hour", "--notify", notify]
    with start(*options) as smtpd:
        for user in ("alice", "bob", "alice", "alice", "bob"):
            deliver(smtpd, user=user)
        facts = wait_for(2)
        assert sorted(str(each["who"]) for each in facts) == ["alice", "bob"]
        smtpd.clock.advance(3601)
        assert deliver(smtpd, user="alice").ok
        assert deliver(smtpd, user="alice").rejected(450)
        if "sqlite" in str(smtpd):  # Redis does not go by the test's clock
            facts = wait_for(3)
    about = next(each for each in facts if each["who"] == "alice")
    assert about["limit"] == "messages 1 per hour"
    assert about["used"] == 1
    assert about["client"] == "192.0.2.10"
    assert about["mail_from"] == "alice@example.net"
    assert about["rcpt_to"] == "bob@example.org"
    assert 0 < about["wait"] <= 3600


def test_a_command_that_fails_is_told_in_the_log_and_changes_nothing(start, tmp_path, caplog):
    script = tmp_path / "fail.sh"
    script.write_text("#!/bin/sh\necho no mail program >&2\nexit 3\n")
    script.chmod(0o755)
    with start("--limit", "user:messages=1/hour", "--notify", str(script)) as smtpd:
        assert deliver(smtpd, user="alice").ok
        assert deliver(smtpd, user="alice").rejected(450)
        wait_until(lambda: "status 3: no mail program" in caplog.text, 10.0, "the log")


def test_a_store_that_is_away_lets_mail_pass_or_defers_it_by_option(redis_server, caplog):
    log_all(caplog)
    words = ["--store", redis_server.url, "--store-timeout=0.5", "--limit=user:messages=2/day"]
    with FakeSmtpd(ratelimit.build(words)) as smtpd:
        assert deliver(smtpd, user="alice").ok
        redis_server.stop()
        assert deliver(smtpd, user="alice").ok
        assert "is away" in caplog.text
        redis_server.start()
        smtpd.clock.advance(2)
        assert try_once(smtpd, user="bob").ok  # what was delivered meanwhile is counted now
        assert try_once(smtpd, user="alice").rejected(450)
    with FakeSmtpd(ratelimit.build([*words, "--store-away=tempfail"])) as smtpd:
        redis_server.pause()
        assert try_once(smtpd, user="carol").rejected(451, "4.3.0 Limits cannot be checked")
        redis_server.resume()


def test_a_full_disk_lets_mail_pass(small_disk, caplog):
    store = f"sqlite:{small_disk.path}/ratelimit.sqlite"
    with FakeSmtpd(ratelimit.build(["--store", store, "--limit=sender:messages=1/day"])) as smtpd:
        assert deliver(smtpd).ok
        small_disk.fill()
        for number in range(40):
            assert deliver(smtpd, sender=f"{number}{'x' * 50}@example.net").ok
        assert "is away" in caplog.text
        small_disk.empty()
        smtpd.clock.advance(2)
        assert deliver(smtpd).rejected(450)


class Sessions(RuleBasedStateMachine):
    """Sessions of one user do what they may, in any order; only what was delivered counts."""

    LIMIT = 6

    def __init__(self) -> None:
        super().__init__()
        self.url = f"sqlite:{os.environ['RATELIMIT_TEST_DIRECTORY']}/{id(self)}.sqlite"
        app = ratelimit.build(["--store", self.url, f"--limit=user:recipients={self.LIMIT}/day"])
        app.filter.data(lambda ctx: reject(554, "no") if self.refuse_data else None)
        app.filter.commit(lambda ctx: reject(554, "no") if self.refuse_commit else None)
        self.refuse_data = self.refuse_commit = False
        self.smtpd = FakeSmtpd(app)
        self.smtpd.__enter__()
        self.sessions: list = []
        self.delivered = 0
        self.seconds = 0

    def teardown(self) -> None:
        self.smtpd.__exit__(None, None, None)

    def _open(self) -> dict[object, int]:
        return {each: n for each, n in self.sessions if not each.closed}

    def _set(self, session, count: int) -> None:
        self.sessions = [(s, count if s is session else n) for s, n in self.sessions]

    @precondition(lambda self: len(self.sessions) < 4)
    @rule()
    def connect(self) -> None:
        self.sessions.append((begin(self.smtpd, user="alice"), 0))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), result=st.sampled_from(["ok", "ok", "permfail", "tempfail"]))
    def ask_for_a_recipient(self, data, result: str) -> None:
        session, count = data.draw(st.sampled_from(self.sessions))
        reply = session.rcpt_to("bob@example.org", result=result)
        room = self.delivered + sum(n for _, n in self.sessions) < self.LIMIT
        assert reply.ok == (room and result == "ok")
        self._set(session, count + reply.ok)

    @precondition(lambda self: any(n for _, n in self.sessions))
    @rule(data=st.data(), refused=st.sampled_from(["", "", "data", "commit"]))
    def send(self, data, refused: str) -> None:
        session, count = data.draw(st.sampled_from([s for s in self.sessions if s[1]]))
        self.refuse_data, self.refuse_commit = refused == "data", refused == "commit"
        reply = session.data(b"Subject: x\n\n")
        assert reply.ok == (not refused)
        if reply.ok:
            self.delivered += count
        if refused == "data":
            return  # the transaction stays open
        self._set(session, 0)
        assert session.mail_from("alice@example.net").ok

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), how=st.sampled_from(["rset", "quit", "disconnect", "timeout"]))
    def give_up(self, data, how: str) -> None:
        session, _ = data.draw(st.sampled_from(self.sessions))
        getattr(session, how)()
        if how == "rset":
            self._set(session, 0)
            assert session.mail_from("alice@example.net").ok
        else:
            self.sessions = [pair for pair in self.sessions if pair[0] is not session]

    @precondition(lambda self: self.seconds < 80_000)
    @rule(seconds=st.sampled_from([1, 60, 300]))
    def pass_time(self, seconds: int) -> None:
        self.smtpd.clock.advance(seconds)
        self.seconds += seconds
        # Sessions live for no longer than their reservations.
        if self.seconds > 600:
            for session, _ in self.sessions:
                session.quit()
            self.sessions, self.seconds = [], 0

    @invariant()
    def the_count_is_what_was_delivered(self) -> None:
        self.smtpd.settle()
        store = open_store(self.url, 5.0)
        [limit] = parse_limits(f"user:recipients={self.LIMIT}/day")
        assert Ledger(store).delivered(Claim(limit, "alice", 0)) == self.delivered
        store.close()


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATELIMIT_TEST_DIRECTORY", str(tmp_path))


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
