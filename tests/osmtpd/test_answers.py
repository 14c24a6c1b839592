"""osmtpd_filter_*: what the client sees of it."""

import gevent
import pytest

from greenfilter import DecisionError
from greenfilter.testing import FakeSmtpd

PEER = "client.example.net"


@pytest.fixture
def ehlo_reply(osmtpd):
    """Give what a client gets for its EHLO from a callback."""

    def ask(callback):
        osmtpd.osmtpd_register_filter_ehlo(callback)
        with FakeSmtpd(osmtpd.app) as smtpd:
            session = smtpd.connect()
            reply = session.ehlo(PEER)
            return reply.lines[-1], session.closed

    return ask


def test_proceed_lets_the_command_go_on(osmtpd, ehlo_reply):
    line, closed = ehlo_reply(lambda ctx, identity: osmtpd.osmtpd_filter_proceed(ctx))
    assert line.startswith("250 ")
    assert not closed


@pytest.mark.parametrize(
    ("function", "arguments", "line", "closes"),
    [
        ("reject", (550, "no %s, %d%%", "name", 5), "550 no name, 5%", False),
        ("reject_enh", (550, 5, 7, 1, "no %s", "name"), "550 5.7.1 no name", False),
        ("disconnect", ("no %s", b"name"), "421 no name", True),
        ("disconnect_enh", (4, 7, 0, "no %-5s|", "name"), "421 4.7.0 no name |", True),
    ],
)
def test_a_refusal_reaches_the_client(osmtpd, ehlo_reply, function, arguments, line, closes):
    answer = getattr(osmtpd, f"osmtpd_filter_{function}")
    assert ehlo_reply(lambda ctx, identity: answer(ctx, *arguments)) == (line, closes)


def test_rewrite_replaces_the_argument(osmtpd):
    seen = []
    osmtpd.osmtpd_register_filter_ehlo(
        lambda ctx, identity: osmtpd.osmtpd_filter_rewrite(ctx, "new.%s", identity)
    )
    osmtpd.osmtpd_register_report_identify(1, lambda ctx, identity: seen.append(identity))
    with FakeSmtpd(osmtpd.app) as smtpd:
        smtpd.connect().ehlo(PEER)
    assert seen == [f"new.{PEER}"]


@pytest.mark.parametrize("modifier", ["l", "ll", "z", "hh", "j"])
def test_length_modifiers_of_printf_are_understood(osmtpd, ehlo_reply, modifier):
    text = f"%%l %05{modifier}u"
    answer = osmtpd.osmtpd_filter_reject
    line, _ = ehlo_reply(lambda ctx, identity: answer(ctx, 550, text, 42))
    assert line == "550 %l 00042"


def test_a_reject_at_connect_disconnects(osmtpd):
    osmtpd.osmtpd_register_filter_connect(
        lambda ctx, rdns, address: osmtpd.osmtpd_filter_reject(ctx, 550, "not %s", address)
    )
    with FakeSmtpd(osmtpd.app) as smtpd:
        session = smtpd.connect(src="[2001:db8::1]:25")
        assert session.reply.lines == ("550 not 2001:db8::1",)
        assert session.closed


def test_a_second_answer_changes_nothing(osmtpd, ehlo_reply):
    returned = []

    def ehlo(ctx, identity):
        returned.append(osmtpd.osmtpd_filter_proceed(ctx))
        returned.append(osmtpd.osmtpd_filter_reject(ctx, 550, "no"))

    assert ehlo_reply(ehlo)[0].startswith("250 ")
    assert returned == [True, False]


@pytest.mark.parametrize(
    "callback",
    [
        lambda osmtpd, ctx: osmtpd.osmtpd_filter_reject(ctx, 250, "no refusal"),
        lambda osmtpd, ctx: osmtpd.osmtpd_filter_reject_enh(ctx, 550, 4, 7, 1, "class"),
        lambda osmtpd, ctx: osmtpd.osmtpd_filter_reject(ctx, 550, "%d", "no number"),
        lambda osmtpd, ctx: osmtpd.osmtpd_filter_rewrite(ctx, "a\nb"),
        lambda osmtpd, ctx: osmtpd.osmtpd_filter_dataline(ctx, "no message here"),
        lambda osmtpd, ctx: osmtpd.osmtpd_errx(1, "fatal"),
        lambda osmtpd, ctx: 1 / 0,
    ],
)
def test_an_answer_that_is_none_is_replaced_by_451(osmtpd, ehlo_reply, callback):
    line, closed = ehlo_reply(lambda ctx, identity: callback(osmtpd, ctx))
    assert line.startswith("451 4.3.0 ")
    assert not closed


def test_rewrite_at_a_phase_without_argument_is_replaced_by_451(osmtpd):
    osmtpd.osmtpd_register_filter_noop(lambda ctx: osmtpd.osmtpd_filter_rewrite(ctx, "value"))
    with FakeSmtpd(osmtpd.app) as smtpd:
        session = smtpd.connect()
        session.ehlo(PEER)
        assert session.noop().code == 451


def test_a_callback_that_never_answers_is_answered_at_its_deadline(osmtpd):
    osmtpd.app.deadline = 0.2
    osmtpd.osmtpd_register_filter_ehlo(lambda ctx, identity: None)
    with FakeSmtpd(osmtpd.app) as smtpd:
        assert smtpd.connect().ehlo(PEER).code == 451


def test_an_answer_may_come_from_another_greenlet(osmtpd):
    def ehlo(ctx, identity):
        gevent.spawn_later(0.01, osmtpd.osmtpd_filter_reject, ctx, 550, "later")

    osmtpd.osmtpd_register_filter_ehlo(ehlo)
    with FakeSmtpd(osmtpd.app) as smtpd:
        assert smtpd.connect().ehlo(PEER).lines == ("550 later",)


def test_an_answer_may_come_from_another_thread(osmtpd):
    def ehlo(ctx, identity):
        pool = gevent.get_hub().threadpool
        pool.spawn(osmtpd.osmtpd_filter_reject, ctx, 550, "%s", "from a thread")

    osmtpd.osmtpd_register_filter_ehlo(ehlo)
    with FakeSmtpd(osmtpd.app) as smtpd:
        assert smtpd.connect().ehlo(PEER).lines == ("550 from a thread",)


def test_an_answer_may_come_in_a_callback_of_another_session(osmtpd):
    held = []
    osmtpd.osmtpd_register_filter_mailfrom(lambda ctx, sender: held.append(ctx))

    def noop(ctx):
        osmtpd.osmtpd_filter_reject(held.pop(), 550, "released")
        osmtpd.osmtpd_filter_proceed(ctx)

    osmtpd.osmtpd_register_filter_noop(noop)
    with FakeSmtpd(osmtpd.app) as smtpd:
        first, second = smtpd.connect(), smtpd.connect()
        first.ehlo(PEER)
        second.ehlo(PEER)
        pending = smtpd.start(first.mail_from, "alice@example.net")
        until(lambda: held)
        assert second.noop().ok
        assert pending.get(timeout=5).lines == ("550 released",)


def test_a_ctx_kept_by_oncreate_answers_the_requests_of_its_session(osmtpd):
    osmtpd.osmtpd_local_session(lambda ctx: [ctx], None)

    def ehlo(ctx, identity):
        (kept,) = ctx.local_session
        gevent.spawn_later(0.01, osmtpd.osmtpd_filter_reject, kept, 550, "for %s", identity)

    osmtpd.osmtpd_register_filter_ehlo(ehlo)
    with FakeSmtpd(osmtpd.app) as smtpd:
        session = smtpd.connect()
        assert session.ehlo("one.example.net").lines == ("550 for one.example.net",)
        assert session.ehlo("two.example.net").lines == ("550 for two.example.net",)


@pytest.mark.parametrize("through_session", [False, True])
def test_a_late_answer_never_reaches_the_next_request(osmtpd, through_session):
    osmtpd.app.deadline = 0.3
    osmtpd.osmtpd_local_session(lambda ctx: ctx, None)
    asked, returned = [], []

    def mailfrom(ctx, sender):
        asked.append(ctx.local_session if through_session else ctx)
        if len(asked) == 2:
            returned.append(osmtpd.osmtpd_filter_proceed(asked[0]))  # meant for the first
            osmtpd.osmtpd_filter_reject(asked[1], 550, "the second")

    osmtpd.osmtpd_register_filter_mailfrom(mailfrom)
    with FakeSmtpd(osmtpd.app) as smtpd:
        session = smtpd.connect()
        session.ehlo(PEER)
        assert session.mail_from("first@example.net").code == 451
        assert session.mail_from("second@example.net").lines == ("550 the second",)
    assert returned == [False]


def test_an_answer_that_nothing_waits_for_is_an_error(osmtpd):
    errors = []

    def disconnected(ctx):
        with pytest.raises(DecisionError, match="waits for no answer") as info:
            osmtpd.osmtpd_filter_proceed(ctx)
        errors.append(info.value)

    osmtpd.osmtpd_register_report_disconnect(1, disconnected)
    osmtpd.osmtpd_register_filter_ehlo(lambda ctx, identity: osmtpd.osmtpd_filter_proceed(ctx))
    with FakeSmtpd(osmtpd.app) as smtpd:
        session = smtpd.connect()
        session.ehlo(PEER)
        session.quit()
    assert len(errors) == 1


def until(condition):
    with gevent.Timeout(5):
        while not condition():
            gevent.sleep(0.001)
