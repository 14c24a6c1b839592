"""Deadlines and forgotten sessions, with time in the hand of the test."""

from __future__ import annotations

import time

import cachetools
import gevent
import gevent.event
import pytest

from greenfilter import Filter, proceed, reject
from greenfilter.testing import Clock, FakeSmtpd

from .driving import in_transaction

HOUR = 3600.0


@pytest.fixture
def smtpd(_greenfilter):
    """The plugin's own; tests/conftest.py has another of this name."""
    return _greenfilter


@pytest.mark.greenfilter_versions("0.4", "0.7")
@pytest.mark.parametrize(("on_error", "code"), [("tempfail", 451), ("proceed", 250)])
def test_a_deadline_passes_when_the_test_says_so(smtpd, on_error, code):
    app = Filter("slow")

    @app.filter.ehlo(deadline=HOUR, on_error=on_error)
    def look_up(ctx, identity):
        gevent.event.Event().wait()

    server = smtpd(app)
    session = server.connect()
    server.clock.freeze()
    pending = server.start(session.ehlo, "client.example.net")
    server.clock.advance(HOUR - 0.01)
    assert not pending.ready()
    server.clock.advance(0.02)
    assert pending.get(timeout=10).code == code


def test_a_deferred_request_is_answered_at_its_deadline(smtpd):
    app = Filter("deferring")
    kept = []

    @app.filter.ehlo(deadline=HOUR)
    def later(ctx, identity):
        kept.append(ctx)
        return ctx.defer()

    server = smtpd(app)
    session = server.connect()
    pending = server.start(session.ehlo, "client.example.net")
    server.clock.advance(HOUR + 1.0)
    assert pending.get(timeout=10).rejected(451)
    assert kept[0].reply(proceed()) is False


def test_a_session_that_smtpd_forgot_is_let_go(smtpd):
    app = Filter("remembering", deadline=30.0)
    deleted = []
    app.local_session(dict, deleted.append)

    @app.filter.ehlo
    def remember(ctx, identity):
        ctx.session.local["identity"] = identity

    server = smtpd(app, session_timeout=300)
    server.connect().ehlo("client.example.net")
    server.clock.advance(330.0)
    assert deleted == []
    server.clock.advance(60.0)
    assert deleted == [{"identity": "client.example.net"}]


def test_a_cache_of_the_filters_own_can_go_by_the_clock():
    clock = Clock()
    cache = cachetools.TTLCache(10, ttl=HOUR, timer=clock)
    clock.freeze()
    cache["key"] = "value"
    clock.advance(HOUR - 1.0)
    assert cache["key"] == "value"
    clock.advance(1.0)
    assert "key" not in cache


def test_time_runs_by_itself_until_it_is_stopped():
    clock = Clock()
    before = clock()
    assert clock() >= before
    clock.freeze()
    assert clock() == clock()
    stopped = clock()
    clock.advance(2.5)
    assert clock() == stopped + 2.5


def greylisting(now) -> Filter:
    app = Filter("greylist")
    first_seen: dict[str, float] = {}

    @app.filter.ehlo
    def ehlo(ctx, identity):
        since = first_seen.setdefault(identity, now())
        return None if now() - since >= 300 else reject(451, "come again", enhanced="4.7.1")

    return app


@pytest.mark.parametrize(
    "now",
    [
        lambda: time.time(),
        lambda: time.monotonic(),
        lambda: time.time_ns() / 1e9,
        lambda: time.monotonic_ns() / 1e9,
    ],
    ids=["time", "monotonic", "time_ns", "monotonic_ns"],
)
def test_the_filter_goes_by_the_clock(smtpd, now):
    server = smtpd(greylisting(now))
    session = server.connect()
    assert session.ehlo("client.example.net").rejected(451, "come again")
    server.clock.advance(250)
    assert session.ehlo("client.example.net").rejected(451, "come again")
    server.clock.advance(50)
    assert session.ehlo("client.example.net").ok


def test_ctx_time_goes_by_the_clock(smtpd):
    app = Filter("dated")
    times = []
    app.filter.noop(lambda ctx: times.append(ctx.time))
    server = smtpd(app)
    session = server.connect()
    session.noop()
    server.clock.advance(200)
    session.noop()
    assert times[1] - times[0] == pytest.approx(200, abs=60)


def test_the_process_has_its_own_time_back_when_the_server_is_stopped():
    before = time.time()
    with FakeSmtpd(greylisting(time.time)) as server:
        server.clock.advance(HOUR)
        assert time.time() >= before + HOUR
    assert before <= time.time() < before + HOUR


def test_a_clock_of_its_own_moves_no_other_time():
    before = time.time()
    Clock().advance(HOUR)
    assert time.time() < before + HOUR


# Reports


def test_settle_waits_for_reports(smtpd):
    app = Filter("reports")
    seen = []

    @app.report.link_disconnect
    def slowly(ctx):
        gevent.sleep(0.05)
        seen.append(ctx.session.id)

    server = smtpd(app)
    session = server.connect()
    session.disconnect()
    server.settle()
    assert seen == [session.id]


def test_settle_does_not_wait_for_a_message_that_is_not_at_its_end(smtpd):
    app = Filter("lines")
    seen = []

    @app.lines
    def lines(ctx, lines):
        for line in lines:
            seen.append(line)
            yield line

    server = smtpd(app, received=False)
    session = in_transaction(server)
    session.data_begin()
    session.data_lines([b"Subject: half"])
    server.settle()
    assert seen == [b"Subject: half"]


def test_settle_does_not_wait_for_ever(smtpd):
    app = Filter("stuck")
    release = gevent.event.Event()
    app.report.link_disconnect(lambda ctx: release.wait())
    server = smtpd(app)
    server.connect().disconnect()
    with pytest.raises(TimeoutError, match=r"still runs after 0\.1 s"):
        server.settle(timeout=0.1)
    release.set()


def test_only_a_filter_in_this_process_can_be_settled(run_filter, tmp_path):
    path = tmp_path / "small.py"
    path.write_text("from greenfilter import Filter\napp = Filter('x')\napp.filter.quit(id)")
    with pytest.raises(RuntimeError, match="this process"):
        run_filter(path).settle()
