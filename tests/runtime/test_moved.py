"""A handler that keeps the loop is run in a thread, and one that cannot be goes back."""

from __future__ import annotations

import functools
import sqlite3
import threading
import time

import gevent
import gevent.event
import pytest

from greenfilter import Filter, reject
from greenfilter._runtime import monitor
from greenfilter.testing import FakeSmtpd

from .driving import TEMPFAIL, greeted, in_transaction, runtime_of, until

_sleep = time.sleep  # in this process it waits in C, as a blocking library does
DONE = reject(550, "done")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A loop that is kept for a fiftieth of a second counts as kept."""
    monkeypatch.setattr(monitor, "_BEAT", 0.005)
    monkeypatch.setattr(monitor, "_KEPT", 0.01)


def ask(smtpd, times, sender="alice@example.net"):
    """Ask one after the other, in sessions of their own, and return the answers."""
    return [str(greeted(smtpd).mail_from(sender).lines[-1]) for _ in range(times)]


def ask_at_once(smtpd, times):
    sessions = [greeted(smtpd) for _ in range(times)]
    asked = [smtpd.start(session.mail_from, "alice@example.net") for session in sessions]
    gevent.joinall(asked, timeout=20)
    return [each.value.code for each in asked]


def moved(smtpd, caplog, ask_it):
    """Have the only handler that blocks moved, by asking it again and again."""
    end = time.monotonic() + 20
    while "runs in a thread" not in caplog.text:
        assert time.monotonic() < end
        ask_it()
    return runtime_of(smtpd)._calls.moved


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


def decorated(fn):
    @functools.wraps(fn)
    def inner(*args):
        return fn(*args)

    return inner


def wait(ctx, *args):
    _sleep(0.05)


def hurry(ctx, *args):
    pass


class _Callable:
    def __init__(self, fn):
        self._fn = fn

    def __call__(self, ctx, sender):
        return self._fn(ctx, sender)


@pytest.mark.parametrize("wrap", [decorated, functools.partial, _Callable])
def test_the_handler_that_blocks_is_found_among_those_that_share_its_code(wrap, caplog):
    app = Filter("alike")
    app.filter.mail_from(wrap(wait))
    app.filter.rcpt_to(wrap(hurry))
    app.filter.noop(decorated(hurry))
    with FakeSmtpd(app) as smtpd:
        handlers = moved(smtpd, caplog, lambda: in_transaction(smtpd).noop()).handlers
    assert {handler.hook for handler in handlers} == {"filter.mail_from"}
    assert f"{__file__}:" in caplog.text
    assert "(_sleep(0.05))" in caplog.text


def test_many_that_each_take_a_moment_are_not_taken_for_one_that_blocks(caplog, monkeypatch):
    monkeypatch.setattr(monitor, "_BEAT", 0.05)
    monkeypatch.setattr(monitor, "_KEPT", 0.1)
    app, gate = Filter("many"), gevent.event.Event()

    @app.filter.mail_from
    def wait_and_work(ctx, sender):
        gate.wait(20)
        _sleep(0.004)

    with FakeSmtpd(app) as smtpd:
        for _ in range(4):
            sessions = [greeted(smtpd) for _ in range(60)]
            gate.clear()
            asked = [smtpd.start(each.mail_from, "a@example.net") for each in sessions]
            until(lambda: len(runtime_of(smtpd)._runners.busy) == 60)
            gate.set()
            gevent.joinall(asked, timeout=20)
        assert not runtime_of(smtpd)._calls.moved.handlers
    assert "runs in a thread" not in caplog.text


def test_what_keeps_the_loop_now_and_then_is_not_moved(caplog, monkeypatch):
    monkeypatch.setattr("greenfilter._runtime.moved._WITHIN", 0.04)
    app = Filter("busy")
    blocking(app, [])
    with FakeSmtpd(app) as smtpd:
        ask(smtpd, 8)
    assert "runs in a thread" not in caplog.text


def test_what_waits_behind_the_first_error_of_another_thread_is_answered_too(caplog):
    app, slow, seen = Filter("busy"), [True], []
    db = sqlite3.connect(":memory:")
    db.create_function("wait", 0, lambda: slow[0] and _sleep(0.05))

    @decorated
    def look_up(ctx, sender):
        return query(sender)

    def query(sender):
        db.execute("select wait()").fetchall()
        seen.append(sender)
        return DONE

    app.filter.mail_from(look_up)
    with FakeSmtpd(app) as smtpd:
        moved(smtpd, caplog, lambda: ask(smtpd, 1))
        slow[0] = False
        before = len(seen)
        assert ask_at_once(smtpd, 8) == [550] * 8
    assert len(seen) - before == 8
    assert caplog.text.count("goes back to the loop") == 1


def test_a_handler_that_starts_greenlets_goes_back_and_they_do_their_work(caplog):
    app = Filter("spawns", deadline=5.0)

    @app.filter.mail_from
    def wait_and_spawn(ctx, sender):
        _sleep(0.05)
        gevent.spawn_later(0.01, ctx.reply, DONE)
        return ctx.defer()

    with FakeSmtpd(app) as smtpd:
        handlers = moved(smtpd, caplog, lambda: ask(smtpd, 1)).handlers
        assert ask_at_once(smtpd, 3) == [550] * 3
        assert not handlers
    assert caplog.text.count("it starts greenlets") == 1


def test_a_line_in_the_hand_of_a_moved_handler_that_hangs_is_not_lost(caplog):
    app, go, hang = Filter("lines", deadline=5.0, on_error="proceed"), threading.Event(), []

    @app.filter.data_line
    def edit(ctx, line):
        if hang and line == b"three":
            hang.append("inside")
            go.wait(20)
        if not hang:
            _sleep(0.03)
        return b"edited " + line

    lines = [b"Subject: x", b"", b"one", b"two", b"three", b"four", b"five"]
    with FakeSmtpd(app) as smtpd:
        moved(smtpd, caplog, lambda: in_transaction(smtpd).data(b"Subject: x\r\n\r\nx\r\n"))
        hang.append("now")
        session = in_transaction(smtpd)
        sent = smtpd.start(session.data, b"".join(line + b"\r\n" for line in lines))
        until(lambda: "inside" in hang)
        smtpd.clock.advance(5.3)
        assert sent.get(timeout=5).ok
        go.set()
        assert session.delivered[0].data.split(b"\r\n")[-len(lines) - 1 : -1] == lines
    assert "its thread is at " in caplog.text
    assert "(go.wait(20))" in caplog.text


def test_one_that_hangs_in_the_thread_does_not_lock_out_the_others(caplog):
    app, go, hang = Filter("hang", deadline=5.0), threading.Event(), []

    @app.filter.mail_from
    def stay(ctx, sender):
        _sleep(0.05)
        if hang:
            hang.append(sender)
            go.wait(20)
        return DONE

    with FakeSmtpd(app) as smtpd:
        moved(smtpd, caplog, lambda: ask(smtpd, 1))
        hang.append("now")
        sessions = [greeted(smtpd) for _ in range(2)]
        stuck = smtpd.start(sessions[0].mail_from, "a@example.net")
        until(lambda: len(hang) == 2)
        smtpd.clock.advance(5.3)
        assert stuck.get(timeout=5).lines == (TEMPFAIL,)
        hang.clear()
        assert sessions[1].mail_from("b@example.net").lines == ("550 done",)
        go.set()


@pytest.mark.parametrize("what", ["local_session", "local_message"])
def test_a_storage_hook_that_blocks_is_told_of(what, caplog):
    app = Filter("storage")
    getattr(app, what)(lambda: _sleep(0.05))
    app.filter.rcpt_to(hurry)
    with FakeSmtpd(app) as smtpd:
        end = time.monotonic() + 20
        while "it can't be moved" not in caplog.text:
            assert time.monotonic() < end
            in_transaction(smtpd)
    assert f"({what}, " in caplog.text
    assert "a handler with thread=True" in caplog.text
