"""A handler that keeps the loop is run in a thread, and one that cannot be goes back."""

from __future__ import annotations

import sqlite3
import threading
import time

import gevent
import pytest

from greenfilter import Filter, reject
from greenfilter._runtime import _monitor
from greenfilter.testing import FakeSmtpd

from .driving import TEMPFAIL, greeted, until

_sleep = time.sleep  # in this process it waits in C, as a blocking library does
DONE = reject(550, "done")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A loop that is kept for a fiftieth of a second counts as kept."""
    monkeypatch.setattr(_monitor, "_BEAT", 0.005)
    monkeypatch.setattr(_monitor, "_KEPT", 0.01)


def ask(smtpd, times, sender="alice@example.net"):
    """Ask one after the other, in sessions of their own, and return the answers."""
    return [str(greeted(smtpd).mail_from(sender).lines[-1]) for _ in range(times)]


def ask_at_once(smtpd, times):
    sessions = [greeted(smtpd) for _ in range(times)]
    asked = [smtpd.start(session.mail_from, "alice@example.net") for session in sessions]
    gevent.joinall(asked, timeout=20)
    return [each.value.code for each in asked]


def blocking(app, seen):
    @app.filter.mail_from
    def wait(ctx, sender):
        seen.append(threading.get_ident())
        _sleep(0.05)
        return DONE


def test_a_handler_that_keeps_the_loop_three_times_is_moved_to_a_thread(caplog):
    app, seen = Filter("busy"), []
    blocking(app, seen)
    with FakeSmtpd(app) as smtpd:
        for _ in range(20):
            assert ask(smtpd, 1) == ["550 done"]
            if "runs in a thread" in caplog.text:
                break
        before = len(seen)
        assert ask_at_once(smtpd, 4) == [550] * 4
    here = threading.get_ident()
    assert seen[:before] == [here] * before
    assert here not in seen[before:]
    assert len(set(seen[before:])) == 1  # one for all
    told = [each.message for each in caplog.records if "runs in a thread" in each.message]
    assert len(told) == 1
    assert "wait (filter.mail_from, " in told[0]
    assert "(_sleep(0.05))" in told[0]
    assert "thread=True" in told[0]


def test_moved_handlers_run_one_at_a_time(caplog):
    app, inside, most = Filter("busy"), [], []

    def wait(ctx, *args):
        inside.append(1)
        most.append(len(inside))
        _sleep(0.05)
        inside.pop()
        return DONE

    app.filter.mail_from(wait)
    app.filter.noop(lambda ctx: wait(ctx))
    with FakeSmtpd(app) as smtpd:
        end = time.monotonic() + 20
        while caplog.text.count("runs in a thread") < 2:
            assert time.monotonic() < end
            session = greeted(smtpd)
            session.mail_from("alice@example.net")
            session.noop()
        sessions = [greeted(smtpd) for _ in range(4)]
        asked = [smtpd.start(each.mail_from, "a@example.net") for each in sessions[:2]]
        asked += [smtpd.start(each.noop) for each in sessions[2:]]
        gevent.joinall(asked, timeout=20)
        assert [each.value.code for each in asked] == [550] * 4
    assert max(most) == 1


def test_the_author_can_turn_it_off(caplog):
    app, seen = Filter("busy", auto_thread=False), []
    blocking(app, seen)
    with FakeSmtpd(app) as smtpd:
        ask(smtpd, 6)
    assert set(seen) == {threading.get_ident()}
    assert "runs in a thread" not in caplog.text


def of_the_loop(caplog, before):
    """Have a handler moved whose connection works in the thread of the loop alone."""
    app, effects = Filter("busy"), []
    db = sqlite3.connect(":memory:")
    slow = [True]
    db.create_function("wait", 0, lambda: slow[0] and _sleep(0.05))

    if before:

        @app.filter.mail_from
        def look_up(ctx, sender):
            effects.append(sender)
            db.execute("select wait()").fetchall()
            return DONE
    else:

        @app.filter.mail_from
        def look_up(ctx, sender):
            db.execute("select wait()").fetchall()
            effects.append(sender)
            return DONE

    with FakeSmtpd(app) as smtpd:
        end = time.monotonic() + 20
        while "runs in a thread" not in caplog.text:
            assert time.monotonic() < end
            assert ask(smtpd, 1) == ["550 done"]
        slow[0] = False
        count = len(effects)
        answers = ask(smtpd, 3)
        return answers, len(effects) - count


def test_what_belongs_to_the_thread_of_the_loop_goes_back_and_no_request_suffers(caplog):
    answers, effects = of_the_loop(caplog, before=False)
    assert answers == ["550 done"] * 3
    assert effects == 3
    assert "goes back to the loop" in caplog.text
    assert "it is called again" in caplog.text


def test_a_request_that_may_have_had_an_effect_is_not_run_again(caplog):
    answers, effects = of_the_loop(caplog, before=True)
    assert answers == [TEMPFAIL, "550 done", "550 done"]
    assert effects == 3
    assert "this request is answered by its policy" in caplog.text


def test_an_error_that_it_had_before_does_not_bring_it_back(caplog):
    app, bad = Filter("busy"), []

    @app.filter.mail_from
    def look_up(ctx, sender):
        _sleep(0.05)
        if bad:
            raise ValueError("no such sender")
        return DONE

    with FakeSmtpd(app) as smtpd:
        bad.append(True)
        assert ask(smtpd, 1) == [TEMPFAIL]
        end = time.monotonic() + 20
        while "runs in a thread" not in caplog.text:
            assert time.monotonic() < end
            ask(smtpd, 1)
        assert ask(smtpd, 2) == [TEMPFAIL] * 2
    assert "goes back" not in caplog.text


@pytest.mark.parametrize("kind", ["lines", "tap"])
def test_what_cannot_be_moved_is_told_of(kind, caplog):
    app = Filter("busy")

    def read(ctx, lines):
        for line in lines:
            _sleep(0.05)
            if kind == "lines":
                yield line

    def look(ctx, lines):
        for _ in lines:
            _sleep(0.05)

    getattr(app, kind)(read if kind == "lines" else look)
    with FakeSmtpd(app) as smtpd:
        end = time.monotonic() + 20
        while "it can't be moved" not in caplog.text:
            assert time.monotonic() < end
            session = greeted(smtpd)
            session.mail_from("a@example.net")
            session.rcpt_to("b@example.net")
            assert session.data(b"Subject: x\r\n\r\nx\r\n").ok
    until(lambda: "@app.message(thread=True)" in caplog.text)
