"""A callback that keeps the loop busy is named, once."""

from __future__ import annotations

import time

import gevent
import pytest

from greenfilter import Filter
from greenfilter._runtime import monitor
from greenfilter.testing import FakeSmtpd

from .driving import MESSAGE, in_transaction


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A loop that is busy for a tenth of a second is busy for too long."""
    monkeypatch.setattr(monitor, "_BEAT", 0.01)
    monkeypatch.setattr(monitor, "_TOO_LONG", 0.1)


def keep_busy(caplog, name):
    """Block the loop until the monitor has said so, or long enough for it to have."""
    end = time.monotonic() + 5
    while f"{name} (" not in caplog.text and time.monotonic() < end:
        pass


def test_a_callback_that_keeps_the_loop_busy_is_named_once(caplog):
    app = Filter("busy")

    @app.filter.ehlo
    def spin(ctx, identity):
        keep_busy(caplog, "spin")

    @app.filter.mail_from
    def again(ctx, sender):
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass

    app.filter.rcpt_to(lambda ctx, recipient: again(ctx, recipient))
    with FakeSmtpd(app) as smtpd:
        in_transaction(smtpd)
    assert caplog.text.count("spin (filter.ehlo, ") == 1
    assert caplog.text.count("again (filter.mail_from, ") == 1
    assert "all sessions wait for it" in caplog.text
    assert __file__ in caplog.text


@pytest.mark.parametrize("kind", ["lines", "tap", "message", "data_line"])
def test_data_handlers_are_named_too(kind, caplog):
    app = Filter("busy")

    def spin(ctx, lines):
        keep_busy(caplog, "spin")

    def spin_lines(ctx, lines):
        keep_busy(caplog, "spin_lines")
        yield from lines

    if kind == "lines":
        app.lines(spin_lines)
    elif kind == "data_line":
        app.filter.data_line(spin)
    else:
        getattr(app, kind)(spin)
    with FakeSmtpd(app) as smtpd:
        in_transaction(smtpd).data(MESSAGE)
    assert f"({'filter.' if kind == 'data_line' else ''}{kind}, " in caplog.text


def test_a_callback_that_waits_is_not_named(caplog):
    app = Filter("waits")
    app.filter.ehlo(lambda ctx, identity: gevent.sleep(0.3))
    app.filter.mail_from(thread=True)(lambda ctx, sender: time.sleep(0.3))
    with FakeSmtpd(app) as smtpd:
        in_transaction(smtpd)
    assert caplog.text == ""


def test_a_loop_without_an_end_is_told_apart_from_what_waits(caplog, monkeypatch):
    monkeypatch.setattr(monitor, "_TOO_LONG", 0.4)
    app = Filter("busy", auto_thread=False)

    @app.filter.ehlo
    def spin(ctx, identity):
        keep_busy(caplog, "spin")

    @app.filter.mail_from
    def wait(ctx, sender):
        time.sleep(0.8)  # in this process it blocks the loop

    with FakeSmtpd(app) as smtpd:
        in_transaction(smtpd)
    (loops,) = [each.message for each in caplog.records if each.message.startswith("spin (")]
    assert "it loops without an end" in loops
    assert "thread=True" not in loops
    (waits,) = [each.message for each in caplog.records if each.message.startswith("wait (")]
    assert "it waits at " in waits
    assert "(time.sleep(0.8)" in waits
    assert "thread=True" in waits
