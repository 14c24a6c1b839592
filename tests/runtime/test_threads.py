"""``thread=True``: callbacks that block in C."""

from __future__ import annotations

import _socket
import threading
from contextvars import ContextVar
from pathlib import Path

import gevent
import gevent.socket
import pytest

from greenfilter import Filter, reject
from greenfilter._runtime import threads
from greenfilter._runtime.threads import Threads
from greenfilter.testing import FakeSmtpd

from .driving import TEMPFAIL, greeted, runtime_of, until

SID = b"0123456789abcdef"


def test_a_callback_runs_in_another_os_thread():
    app, threads = Filter("thread"), []

    @app.filter.ehlo(thread=True)
    def ehlo(ctx, identity):
        threads.append(threading.get_ident())
        return reject(550, "from a thread")

    with FakeSmtpd(app) as smtpd:
        assert smtpd.connect().ehlo("client.example.net").lines == ("550 from a thread",)
    assert threads != [threading.get_ident()]


def test_as_many_run_at_once_as_the_pool_has_and_the_loop_goes_on():
    app, inside = Filter("pool", threads=3), []
    go = threading.Event()

    @app.filter.ehlo(thread=True)
    def ehlo(ctx, identity):
        inside.append(identity)
        go.wait(10)

    with FakeSmtpd(app) as smtpd:
        sessions = [smtpd.connect() for _ in range(5)]
        pending = [smtpd.start(session.ehlo, "client.example.net") for session in sessions]
        until(lambda: len(inside) == 3)
        assert smtpd.connect().noop().ok
        assert len(inside) == 3
        go.set()
        assert all(greenlet.get(timeout=5).ok for greenlet in pending)
    assert len(inside) == 5


def test_slow_names_of_many_clients_are_resolved_at_the_same_time(monkeypatch):
    clients = 60
    app, all_ask = Filter("names"), threading.Barrier(clients)

    def resolve(name):
        all_ask.wait(20)
        return "127.0.0.2"

    monkeypatch.setattr(_socket, "gethostbyname", resolve)

    @app.filter.connect
    def connect(ctx, rdns, address):
        return reject(550, gevent.socket.gethostbyname("2.0.0.127.bl.example.org"))

    with FakeSmtpd(app) as smtpd:
        pending = [smtpd.start(smtpd.connect) for _ in range(clients)]
        replies = {greenlet.get(timeout=25).reply.lines for greenlet in pending}
    assert replies == {("550 127.0.0.2",)}


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_an_error_in_a_thread_is_answered_by_policy_and_printed_nowhere(error, capfd):
    app = Filter("thread")

    @app.filter.mail_from(thread=True)
    def mail_from(ctx, sender):
        raise error

    with FakeSmtpd(app) as smtpd:
        session = greeted(smtpd)
        assert session.mail_from("alice@example.net").lines == (TEMPFAIL,)
        assert session.quit().ok
    assert capfd.readouterr().err == ""


def test_a_thread_that_ends_late_changes_nothing():
    app, go = Filter("late", deadline=5.0, threads=1), threading.Event()
    begun, done = [], []

    @app.filter.ehlo(thread=True)
    def ehlo(ctx, identity):
        begun.append(identity)
        go.wait(10)
        done.append(identity)
        raise ValueError("late")

    with FakeSmtpd(app) as smtpd:
        first, second = smtpd.connect(), smtpd.connect()
        pending = [smtpd.start(session.ehlo, "x.example.net") for session in (first, second)]
        until(lambda: begun and runtime_of(smtpd)._runners.in_hand() == 2)
        smtpd.clock.advance(5.3)
        assert [greenlet.get(timeout=5).lines for greenlet in pending] == [(TEMPFAIL,)] * 2
        go.set()
        until(lambda: done == ["x.example.net"])
        # The call that still waited for a thread when its time was over is not made.
        assert first.ehlo("y.example.net").lines == (TEMPFAIL,)
        assert second.noop().ok
    assert done == ["x.example.net", "y.example.net"]


def test_threads_that_hang_are_replaced_up_to_a_limit_and_come_back(caplog):
    app, go, limit = Filter("hang", deadline=5.0, threads=2), threading.Event(), 2 + 2 * 4
    worn_out, inside = [], []

    @app.filter.ehlo(thread=True)
    def ehlo(ctx, identity):
        if identity == "hang":
            inside.append(identity)
            go.wait(20)

    with FakeSmtpd(app) as smtpd:
        threads = runtime_of(smtpd)._calls.threads
        threads.on_worn_out = lambda: worn_out.append(len(inside))
        for hanging in range(2, limit + 2, 2):
            pending = [smtpd.start(smtpd.connect().ehlo, "hang") for _ in range(2)]
            until(lambda hanging=hanging: len(inside) == hanging)
            smtpd.clock.advance(5.3)
            assert {greenlet.get(timeout=5).lines for greenlet in pending} == {(TEMPFAIL,)}
            if hanging < limit:
                assert smtpd.connect().ehlo("fine").ok
        assert worn_out == [limit, limit]
        assert "is replaced (8 of at most 8)" in caplog.text
        go.set()
        until(lambda: not threads.hanging)
        assert smtpd.connect().ehlo("fine").ok
        assert threads._threads <= 2
        assert smtpd.connect().ehlo("fine").ok


def test_threads_that_the_system_does_not_give_are_asked_for_again(monkeypatch, caplog):
    app = Filter("limit", deadline=5.0, threads=1)

    @app.filter.ehlo(thread=True)
    def ehlo(ctx, identity):
        return reject(550, "from a thread")

    def start(*_):
        raise RuntimeError("can't start new thread")

    with FakeSmtpd(app) as smtpd:
        with monkeypatch.context() as patch:
            patch.setattr(threads, "get_original", lambda *_: start)
            waits = smtpd.start(smtpd.connect().ehlo, "x.example.net")
            until(lambda: "can't start new thread" in caplog.text)
            smtpd.clock.advance(5.3)
            assert waits.get(timeout=5).lines == (TEMPFAIL,)
        assert smtpd.connect().ehlo("x.example.net").lines == ("550 from a thread",)


def test_a_context_variable_that_a_callback_sets_in_a_thread_is_not_there_for_the_next():
    threads, var = Threads(1), ContextVar("var", default=None)
    for _ in range(2):
        assert threads.call(SID, 0, var.get) is None
        threads.call(SID, 0, var.set, "set")


def test_a_callback_may_reply_from_its_thread():
    app = Filter("reply")

    @app.filter.ehlo(thread=True)
    def ehlo(ctx, identity):
        assert ctx.reply(reject(550, "replied")) is True
        return ctx.defer()

    with FakeSmtpd(app) as smtpd:
        assert smtpd.connect().ehlo("client.example.net").lines == ("550 replied",)


def test_a_call_gives_what_the_function_gives():
    threads = Threads(2)
    assert gevent.spawn(threads.call, SID, 0, divmod, 7, 2).get(timeout=5) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.call(SID, 0, divmod, 1, 0)


def test_threads_end_with_the_pool_and_those_that_hang_when_they_come_back():
    threads, go, tasks = Threads(2), threading.Event(), []

    def note(wait):
        tasks.append(Path(f"/proc/self/task/{threading.get_native_id()}"))
        go.wait(wait)

    hung = gevent.spawn(threads.call, SID, 0, note, 20)
    until(lambda: tasks)
    threads.call(SID, 0, note, 0)
    hung.kill()
    threads.close()
    until(lambda: not tasks[1].exists())
    assert tasks[0].exists()
    go.set()
    until(lambda: not tasks[0].exists())
