"""Deadlines and forgotten sessions, with time in the hand of the test."""

from __future__ import annotations

import cachetools
import gevent
import gevent.event
import pytest

from greenfilter import Filter, proceed
from greenfilter.testing import Clock

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
