"""Members that only look on."""

from __future__ import annotations

import gevent
import pytest

from greenfilter import Chain, Filter, bypass, junk, reject, rewrite
from greenfilter.testing import FakeSmtpd

from ..supervisor.conftest import until
from .driving import answering, answers, asking, greeted, in_transaction, logged
from .test_programs import program

DATA = b"Subject: hello\r\n\r\none\r\n.two\r\n"


def observing(app: Filter, *others: Filter, **conditions) -> Chain:
    made = Chain("mx").add(app, observe=True, **conditions)
    for other in others:
        made.add(other)
    return made


def until_logged(caplog, text: str) -> None:
    until(lambda: any(text in line for line in logged(caplog)), text, lambda: caplog.text)


@pytest.fixture(autouse=True)
def _level(caplog):
    caplog.set_level("INFO")


@pytest.mark.parametrize(
    ("decision", "shown"),
    [
        (reject(550, "no"), "reject|550 no"),
        (junk(), "junk"),
        (rewrite("x@example.org"), "rewrite|<x@example.org>"),
    ],
    ids=repr,
)
def test_what_it_would_have_decided_is_logged_and_nothing_else_happens(decision, shown, caplog):
    with FakeSmtpd(observing(answering("rcpt_to", decision, "watcher"))) as smtpd:
        assert in_transaction(smtpd).data(DATA).ok
        until_logged(caplog, f"observing watcher: rcpt-to: {shown}")
        assert answers(smtpd, "rcpt-to") == ["proceed"]
        assert not smtpd.messages[0].junk
        assert smtpd.messages[0].rcpt_to == ("bob@example.org",)


def test_it_does_not_bypass(caplog):
    asked = []
    made = observing(
        answering("ehlo", bypass()), asking("ehlo", lambda ctx, value: asked.append(value))
    )
    with FakeSmtpd(made) as smtpd:
        greeted(smtpd)
    assert asked == ["client.example.net"]


def test_an_edited_message_is_logged_and_passes_unchanged(caplog):
    app = Filter("watcher")

    @app.lines
    def edit(ctx, lines):
        yield from lines
        yield b"-- "

    with FakeSmtpd(observing(app), received=False) as smtpd:
        assert in_transaction(smtpd).data(DATA).message == DATA
        until_logged(caplog, "it would have edited the message: 4 lines, then 5")


def test_a_message_that_it_leaves_alone_is_not_logged(caplog):
    app = Filter("watcher")
    app.message(lambda ctx, message: None)
    app.filter.commit(lambda ctx: reject(554, "after all"))
    with FakeSmtpd(observing(app), received=False) as smtpd:
        assert in_transaction(smtpd).data(DATA).message == DATA
        until_logged(caplog, "observing watcher: commit: reject|554 after all")
    assert "edited" not in caplog.text


def test_it_never_delays():
    app = Filter("slow")
    app.filter.ehlo(lambda ctx, identity: gevent.sleep(3600))
    app.message(lambda ctx, message: gevent.sleep(3600))
    with FakeSmtpd(observing(app), timeout=2.0) as smtpd:
        assert in_transaction(smtpd).data(DATA).ok
        smtpd.clock.advance(60)


def test_it_sees_the_values_of_its_place_in_the_chain(caplog):
    seen = []
    app = Filter("watcher")

    @app.filter.rcpt_to
    def rcpt_to(ctx, recipient):
        seen.append((ctx.session.identity, ctx.tx.message_id != "", recipient))

    made = Chain("mx").add(answering("rcpt_to", rewrite("new@example.org")))
    made.add(app, observe=True)
    with FakeSmtpd(made) as smtpd:
        in_transaction(smtpd)
        until(lambda: bool(seen), "the request")
    assert seen == [("client.example.net", True, "new@example.org")]


def test_conditions_count(caplog):
    made = observing(answering("ehlo", reject(550, "no"), "watcher"), when={"tls": True})
    made.add(answering("ehlo", reject(551, "asked")))
    with FakeSmtpd(made) as smtpd:
        assert smtpd.connect().ehlo("x.example").code == 551
    assert "observing" not in caplog.text


def test_one_that_fails_hinders_nobody(caplog):
    def fail(ctx, value):
        raise ValueError("broken")

    with FakeSmtpd(observing(asking("ehlo", fail, "watcher"))) as smtpd:
        greeted(smtpd)
        until_logged(caplog, "observing watcher: ehlo: reject|451")


def test_a_program_may_observe(caplog):
    app = program(answers={"rcpt-to": ["reject|550 no"]})
    with FakeSmtpd(observing(app), received=False) as smtpd:
        assert in_transaction(smtpd).data(DATA).message == DATA
        until_logged(caplog, f"observing {app.name}: rcpt-to: reject|550 no")


def test_local_objects_are_made_and_deleted():
    deleted = []
    app = Filter("watcher")
    app.local_session(dict, lambda made: deleted.append(made))
    app.filter.ehlo(lambda ctx, identity: ctx.session.local.update(identity=identity))
    with FakeSmtpd(observing(app)) as smtpd:
        greeted(smtpd).quit()
        until(lambda: bool(deleted), "the delete hook")
    assert deleted == [{"identity": "client.example.net"}]
