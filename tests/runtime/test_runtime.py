"""A runtime from the handshake to smtpd's end, in this process and in one of its own."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import gevent
import gevent.event
import pytest

from greenfilter import Filter, RegistrationError, SessionClosed
from greenfilter.testing import FakeSmtpd

from .driving import MESSAGE, Pipe, greeted, in_data, in_transaction, request, until

COMMAND = [sys.executable, "-m", "greenfilter", "run", "--no-supervisor"]
COMMAND.append(str(Path(__file__).with_name("filters.py")))


# The handshake


def test_on_config_gets_what_smtpd_said_before_mail_is_served():
    app, seen = Filter("config"), []

    @app.on_config
    def first(config):
        gevent.sleep(0)
        seen.append((config.protocol, config.smtp_session_timeout, config.subsystems))

    app.on_config(lambda config: seen.append(config is app.config))
    with FakeSmtpd(app, session_timeout=77) as smtpd:
        assert seen == [((0, 7), 77.0, ["smtp-in"]), True]
        assert smtpd.connect().noop().ok


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_on_config_that_raises_stops_nothing(error, caplog):
    app, seen = Filter("config"), []

    @app.on_config
    def fail(config):
        raise error

    app.on_config(seen.append)
    with FakeSmtpd(app) as smtpd:
        assert smtpd.connect().noop().ok
    assert seen == [app.config]
    assert "on_config" in caplog.text


def test_registration_is_closed_once_the_filter_runs():
    app = Filter("closed")
    with FakeSmtpd(app), pytest.raises(RegistrationError):
        app.filter.ehlo(lambda ctx, identity: None)


def test_lines_that_make_no_sense_are_logged_and_skipped(caplog):
    app = Filter("nonsense")
    app.filter.ehlo(lambda ctx, identity: None)
    with Pipe(app) as pipe:
        pipe.send("", "x", "report|0.7", "filter|0.7|1|smtp-in|ehlo|short|x|", b"\xff\x00|" * 30)
        pipe.send(*["nonsense"] * 500, request("ehlo", parameter="client"))
        until(lambda: pipe.results() == ["proceed"])
    assert 90 <= caplog.text.count("from smtpd: ") <= 101
    assert "further problems are not logged" in caplog.text


# The end


def test_at_the_end_running_callbacks_get_a_moment():
    app, ends, gate = Filter("moment"), [], gevent.event.Event()

    @app.filter.ehlo
    def ehlo(ctx, identity):
        gate.wait()
        ends.append("done")

    with Pipe(app) as pipe:
        pipe.send(request("ehlo", parameter="client"))
        until(lambda: pipe.runtime._runners.busy)
        gevent.spawn_later(0.02, gate.set)
    assert ends == ["done"]


def test_at_the_end_a_callback_that_goes_on_is_ended():
    app, ends = Filter("ended"), []

    @app.filter.ehlo
    def ehlo(ctx, identity):
        try:
            gevent.event.Event().wait()
        except SessionClosed:
            ends.append("callback")
            raise

    app.local_session(list, lambda local: ends.append("deleted"))
    with Pipe(app) as pipe:
        pipe.send(request("ehlo", parameter="client"))
        until(lambda: pipe.runtime._runners.busy)
    assert ends == ["callback", "deleted"]


@pytest.mark.parametrize("mode", ["lines", "tap"])
def test_at_the_end_open_messages_are_given_up(mode, caplog):
    app, got, ends = Filter("open"), [], []

    def read(lines):
        try:
            for line in lines:
                got.append(line)
                yield line
        finally:
            ends.append("handler")

    if mode == "lines":
        app.lines(lambda ctx, lines: read(lines))
    else:
        app.tap(lambda ctx, lines: list(read(lines)) and None)
    app.local_message(list, lambda local: ends.append("message"))
    app.local_session(list, lambda local: ends.append("session"))
    with FakeSmtpd(app, received=False) as smtpd:
        in_data(smtpd).data_lines([b"one"])
        until(lambda: got == [b"one"])
    assert ends == ["handler", "message", "session"]
    assert caplog.text == ""


def test_at_the_end_a_callback_that_does_not_end_holds_up_no_delete_hook():
    app, ends, gate = Filter("deaf"), [], gevent.event.Event()

    @app.filter.ehlo
    def ehlo(ctx, identity):
        while not gate.is_set():
            try:
                gate.wait()
            except BaseException:
                continue

    app.local_session(list, lambda local: ends.append("deleted"))
    begin = time.monotonic()
    with Pipe(app) as pipe:
        pipe.send(request("ehlo", parameter="client"))
        until(lambda: pipe.runtime._runners.busy)
    assert ends == ["deleted"]
    assert time.monotonic() - begin < 5
    gate.set()


def test_the_end_in_the_middle_of_a_line_is_an_end():
    with Pipe(Filter("half")) as pipe:
        pipe.send_raw(request("ehlo").encode()[:30])


def test_a_runtime_in_memory_leaves_no_greenlet_that_ticks():
    app = Filter("clean")
    with Pipe(app) as pipe:
        clock = pipe.runtime._housekeeper
    assert not clock._timer.active


# A process


def test_what_a_filter_prints_goes_to_the_log():
    with FakeSmtpd([*COMMAND, "--", "--any"]) as smtpd:
        assert smtpd.connect().ehlo("print.example.net").ok
        assert smtpd.connect().ehlo("reject.hello").lines == ("550 hello",)
    log = smtpd.log
    assert "started" in log
    assert any(line.startswith("version ") and "'--any'" in line for line in log)
    assert {"filter-result|x|y|proceed", "register|ready", "from a child"} <= set(log)


@pytest.mark.parametrize("verb", ["exit", "greenlet", "kill"])
def test_nothing_that_a_callback_does_ends_the_process(verb):
    with FakeSmtpd(COMMAND) as smtpd:
        session = smtpd.connect()
        assert session.ehlo(f"{verb}.example.net").code in (250, 451)
        for _ in range(3):
            assert greeted(smtpd).quit().ok
        assert session.quit().ok


def ask_in_vain(session, command):
    with suppress(ConnectionError):  # smtpd is stopped
        session.command(command)


def test_what_waits_for_work_is_not_interrupted_at_smtpds_end():
    app = Filter("ended")
    app.filter.ehlo(lambda ctx, identity: None)
    with Pipe(app) as pipe:
        pipe.send(request("ehlo"))
        until(lambda: pipe.results() == ["proceed"])
        (idle,) = pipe.runtime._runners._idle
        pipe.runtime._interrupt(idle)
        assert not idle.greenlet.dead


def test_smtpds_end_is_noticed_while_nothing_is_read_since_too_many_handlers_run():
    app, deleted = Filter("full", max_concurrency=1), []
    app.local_session(lambda: 1, deleted.append)
    app.filter.ehlo(lambda ctx, identity: gevent.sleep(1000))
    with Pipe(app) as pipe:
        pipe.send(request("ehlo", 1), request("ehlo", 2))
        until(lambda: pipe.runtime._channel._paused)
    assert deleted == [1, 1]


@pytest.mark.parametrize("verb", ["sleep", "deaf", "threads", "noop"])
def test_at_smtpds_end_the_process_ends_within_a_second(verb):
    with FakeSmtpd(COMMAND) as smtpd:
        session = smtpd.connect()
        if verb == "threads":
            session.ehlo(f"{verb}.example.net")
        else:
            smtpd.start(ask_in_vain, session, "NOOP" if verb == "noop" else f"EHLO {verb}.x")
            until(lambda: b"|noop|" in smtpd.trace[-1][1] or b"|ehlo|" in smtpd.trace[-1][1])
        begin = time.monotonic()
    # A second is the promise; the machine that tests may be slow.
    assert time.monotonic() - begin < 3
    assert "session deleted" in smtpd.log


def test_a_message_goes_through_a_process():
    with FakeSmtpd(COMMAND) as smtpd:
        assert in_transaction(smtpd).data(MESSAGE).message.endswith(MESSAGE)
