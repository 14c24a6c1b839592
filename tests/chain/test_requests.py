"""One request through a chain: who is asked, about what, and what goes out."""

from __future__ import annotations

import threading
import time

import gevent
import pytest

from greenfilter import (
    Chain,
    Filter,
    HandlerTimeout,
    Need,
    NeedError,
    RegistrationError,
    bypass,
    disconnect,
    junk,
    proceed,
    reject,
    report,
    rewrite,
)
from greenfilter.testing import FakeSmtpd

from .driving import TEMPFAIL, answering, answers, asking, chain, greeted, in_transaction, logged


def test_members_are_asked_in_order_until_one_refuses():
    asked = []

    def member(name, decision=None):
        return asking("rcpt_to", lambda ctx, value: asked.append(name) or decision)

    made = chain(member("a"), member("b", reject(550, "no")), member("c"))
    with FakeSmtpd(made) as smtpd:
        session = greeted(smtpd)
        session.mail_from("alice@example.net")
        assert session.rcpt_to("bob@example.org").lines == ("550 no",)
        assert asked == ["a", "b"]


def test_disconnect_ends_the_session():
    with FakeSmtpd(chain(answering("ehlo", disconnect(421, "bye")))) as smtpd:
        assert smtpd.connect().ehlo("x.example").lines == ("421 bye",)


def test_a_phase_that_no_member_has_is_not_registered():
    with FakeSmtpd(chain(answering("ehlo", None), answering("noop", None))) as smtpd:
        phases = {name for kind, _, name in smtpd.registered if kind == "filter"}
        assert phases == {"ehlo", "noop"}


class TestRewrites:
    def test_the_next_members_are_asked_about_the_new_value_and_the_last_is_sent(self):
        asked = []

        def member(value):
            def answer(ctx, given):
                asked.append(given)
                return value and rewrite(value)

            return asking("mail_from", answer)

        made = chain(member("a@example.net"), member(None), member("<c@example.net> SIZE=1"))
        made.add(member(None))
        with FakeSmtpd(made) as smtpd:
            greeted(smtpd).mail_from("alice@example.net")
            assert asked == ["alice@example.net", "a@example.net", "a@example.net", "c@example.net"]
            assert answers(smtpd, "mail-from") == ["rewrite|<c@example.net> SIZE=1"]

    def test_each_member_sees_the_addresses_as_it_left_them(self):
        seen = {}

        def watching(name, **rewrites):
            app = Filter(name)
            for phase, value in rewrites.items():
                getattr(app.filter, phase)(lambda ctx, given, value=value: rewrite(value))

            @app.filter.data
            def data(ctx):
                seen[name] = (ctx.tx.mail_from, ctx.tx.rcpt_to, ctx.tx.envelope_ids)

            return app

        made = chain(
            watching("a"),
            watching("b", mail_from="b@example.net", rcpt_to="b@example.org"),
            watching("c", rcpt_to="c@example.org"),
            watching("d"),
        )
        with FakeSmtpd(made) as smtpd:
            in_transaction(smtpd).data(b"x: y\r\n")
            (message,) = smtpd.messages
        assert (message.mail_from, message.rcpt_to) == ("b@example.net", ("c@example.org",))
        assert seen["a"][:2] == ("alice@example.net", ["bob@example.org"])
        assert seen["b"][:2] == ("b@example.net", ["b@example.org"])
        assert seen["c"][:2] == ("b@example.net", ["c@example.org"])
        assert seen["d"][:2] == ("b@example.net", ["c@example.org"])
        assert {len(ids) for _, _, ids in seen.values()} == {1}

    def test_a_recipient_that_was_refused_leaves_no_rewrite_behind(self):
        seen = []

        def rename(ctx, recipient):
            return rewrite("new@example.org") if recipient == "old@example.org" else None

        def refuse(ctx, recipient):
            return reject(550, "no") if recipient == "new@example.org" else None

        last = Filter("last")

        @last.filter.data
        def data(ctx):
            seen.append(ctx.tx.rcpt_to)

        made = chain(asking("rcpt_to", rename), asking("rcpt_to", refuse), last)
        with FakeSmtpd(made) as smtpd:
            session = in_transaction(smtpd)
            assert not session.rcpt_to("old@example.org").ok
            assert session.rcpt_to("carol@example.org").ok
            session.data(b"x: y\r\n")
        assert seen == [["bob@example.org", "carol@example.org"]]

    def test_a_second_transaction_begins_without_the_rewrites_of_the_first(self):
        seen = []
        first = asking(
            "mail_from", lambda ctx, value: rewrite("a@x.example") if "alice" in value else None
        )
        last = Filter("last")

        @last.filter.data
        def data(ctx):
            seen.append(ctx.tx.mail_from)

        with FakeSmtpd(chain(last, first)) as smtpd:
            session = in_transaction(smtpd)
            session.data(b"x: y\r\n")
            session.mail_from("bob@example.net")
            session.rcpt_to("carol@example.org")
            session.data(b"x: y\r\n")
        assert seen == ["alice@example.net", "bob@example.net"]

    def test_a_new_identity_reaches_the_next_members(self):
        asked = []
        made = chain(
            answering("ehlo", rewrite("new.example")),
            asking("ehlo", lambda ctx, value: asked.append(value)),
        )
        with FakeSmtpd(made) as smtpd:
            greeted(smtpd)
        assert asked == ["new.example"]


class TestJunk:
    def test_is_kept_while_the_next_members_are_asked(self):
        made = chain(answering("rcpt_to", junk()), answering("rcpt_to", reject(550, "no")))
        with FakeSmtpd(made) as smtpd:
            session = greeted(smtpd)
            session.mail_from("alice@example.net")
            assert session.rcpt_to("bob@example.org").code == 550

    def test_is_sent_when_all_were_asked(self):
        asked = []
        made = chain(
            answering("rcpt_to", junk()), asking("rcpt_to", lambda ctx, value: asked.append(value))
        )
        with FakeSmtpd(made) as smtpd:
            in_transaction(smtpd).data(b"x: y\r\n")
            assert asked == ["bob@example.org"]
            assert answers(smtpd, "rcpt-to") == ["junk"]
            assert smtpd.messages[0].junk

    def test_of_a_message_goes_out_at_data_after_a_rewrite(self):
        made = chain(answering("rcpt_to", junk()), answering("rcpt_to", rewrite("new@example.org")))
        with FakeSmtpd(made) as smtpd:
            session = in_transaction(smtpd)
            session.data(b"x: y\r\n")
            assert answers(smtpd, "rcpt-to") == ["rewrite|<new@example.org>"]
            assert answers(smtpd, "data") == ["junk"]
            assert smtpd.messages[0].junk

    def test_of_a_message_does_not_pass_to_the_next(self):
        def only_first(ctx, value):
            return junk() if value == "bob@example.org" else None

        made = chain(
            asking("rcpt_to", only_first), asking("rcpt_to", lambda ctx, v: rewrite(f"x{v}"))
        )
        with FakeSmtpd(made) as smtpd:
            session = in_transaction(smtpd)
            session.rset()
            session.mail_from("alice@example.net")
            session.rcpt_to("carol@example.org")
            session.data(b"x: y\r\n")
            assert not smtpd.messages[0].junk

    def test_of_a_session_is_sent_until_it_marks_the_session(self):
        made = chain(
            answering("ehlo", junk()),
            answering("ehlo", rewrite("new.example")),
            answering("rcpt_to", None),
            answering("noop", None),
        )
        with FakeSmtpd(made) as smtpd:
            session = in_transaction(smtpd)
            session.data(b"x: y\r\n")
            assert answers(smtpd, "rcpt-to") == ["junk"]
            session.command("NOOP")
            session.command("NOOP")
            assert answers(smtpd, "noop") == ["junk", "proceed"]
            session.mail_from("alice@example.net")
            session.rcpt_to("bob@example.org")
            session.data(b"x: y\r\n")
            assert answers(smtpd, "rcpt-to") == ["junk", "proceed"]
            assert [message.junk for message in smtpd.messages] == [True, True]

    def test_at_commit_is_not_legal_and_the_policy_answers(self, caplog):
        with FakeSmtpd(chain(answering("commit", junk()))) as smtpd:
            assert in_transaction(smtpd).data(b"x: y\r\n").lines == (TEMPFAIL,)
        assert "junk is not legal at commit" in caplog.text


def test_report_goes_out_only_if_nothing_else_does():
    made = chain(answering("data", report("hello")), answering("data", None))
    with FakeSmtpd(made) as smtpd:
        in_transaction(smtpd).data_begin()
        assert answers(smtpd, "data") == ["report|hello"]
    made = chain(answering("data", report("hello")), answering("data", junk()))
    with FakeSmtpd(made) as smtpd:
        in_transaction(smtpd).data_begin()
        assert answers(smtpd, "data") == ["junk"]


class TestBypass:
    def test_keeps_the_session_from_all_later_members(self):
        asked = []

        def note(name):
            return asking("rcpt_to", lambda ctx, value: asked.append(name))

        first = Filter("first")

        @first.filter.mail_from
        def mail_from(ctx, sender):
            return bypass() if sender == "friend@example.net" else None

        @first.filter.rcpt_to
        def rcpt_to(ctx, recipient):
            asked.append("first")

        with FakeSmtpd(chain(note("before"), first, note("after"))) as smtpd:
            session = greeted(smtpd)
            session.mail_from("friend@example.net")
            session.rcpt_to("bob@example.org")
            assert asked == ["before", "first"]
            session.rset()
            session.mail_from("other@example.net")
            session.rcpt_to("bob@example.org")
            assert asked == ["before", "first"] * 2
            other = in_transaction(smtpd)
            assert asked[4:] == ["before", "first", "after"]
            other.quit()

    def test_keeps_the_message_from_later_stages(self):
        late = Filter("late")

        @late.lines
        def edit(ctx, lines):
            yield from lines
            yield b"edited"

        with FakeSmtpd(chain(answering("ehlo", bypass()), late), received=False) as smtpd:
            assert in_transaction(smtpd).data(b"x: y\r\n").message == b"x: y\r\n"

    def test_reports_still_reach_the_later_members(self):
        told = []
        late = Filter("late")

        @late.report.tx_mail
        def tx_mail(ctx, message_id, result, sender):
            told.append(sender)

        with FakeSmtpd(chain(answering("ehlo", bypass()), late)) as smtpd:
            in_transaction(smtpd)
            smtpd.settle()
            assert told == ["alice@example.net"]

    def test_outside_a_chain_is_proceed(self):
        with FakeSmtpd(answering("rcpt_to", bypass())) as smtpd:
            in_transaction(smtpd)
            assert answers(smtpd, "rcpt-to") == ["proceed"]


class TestFailures:
    def test_a_member_that_raises_is_answered_by_its_policy_and_the_next_is_asked(self, caplog):
        asked = []

        def fail(ctx, value):
            raise ValueError("broken")

        made = Chain("mx")
        made.add(asking("rcpt_to", fail), on_error="proceed")
        made.add(asking("rcpt_to", lambda ctx, value: asked.append(value)))
        with FakeSmtpd(made) as smtpd:
            in_transaction(smtpd)
        assert asked == ["bob@example.org"]
        assert "ValueError: broken" in caplog.text

    def test_a_refusing_policy_refuses(self):
        def fail(ctx, value):
            raise ValueError("broken")

        with FakeSmtpd(chain(asking("ehlo", fail))) as smtpd:
            assert smtpd.connect().ehlo("x.example").lines == (TEMPFAIL,)

    @pytest.mark.parametrize("wrong", ["text", 7, rewrite("x")], ids=repr)
    def test_what_is_no_decision_here_is_answered_by_the_policy(self, wrong):
        with FakeSmtpd(chain(answering("connect", wrong))) as smtpd:
            assert smtpd.connect().reply.lines == (TEMPFAIL,)

    def test_a_member_past_its_deadline_is_ended_and_the_next_is_asked(self):
        asked, ended = [], []

        def wait(ctx, value):
            try:
                gevent.sleep(3600)
            except HandlerTimeout:
                ended.append(True)
                raise

        made = Chain("mx")
        made.add(asking("rcpt_to", wait), deadline=5.0, on_error="proceed")
        made.add(asking("rcpt_to", lambda ctx, value: asked.append(value)))
        with FakeSmtpd(made) as smtpd:
            session = greeted(smtpd)
            session.mail_from("alice@example.net")
            pending = smtpd.start(session.rcpt_to, "bob@example.org")
            smtpd.clock.advance(4.9)
            assert not pending.ready()
            smtpd.clock.advance(0.3)
            assert pending.get(timeout=5).ok
        assert (asked, ended) == (["bob@example.org"], [True])

    def test_the_deadline_of_the_chain_bounds_them_all(self):
        made = Chain("mx", deadline=8.0)
        for _ in range(3):
            made.add(
                asking("rcpt_to", lambda ctx, value: gevent.sleep(3600)),
                deadline=5.0,
                on_error="proceed",
            )
        with FakeSmtpd(made) as smtpd:
            session = greeted(smtpd)
            session.mail_from("alice@example.net")
            pending = smtpd.start(session.rcpt_to, "bob@example.org")
            smtpd.clock.advance(7.9)
            assert not pending.ready()
            smtpd.clock.advance(0.3)
            assert pending.get(timeout=5).ok

    def test_options_of_a_handler_are_stronger_than_those_of_the_chain(self):
        def fail(ctx, value):
            raise ValueError

        made = Chain("mx").add(
            asking("ehlo", fail, on_error=reject(555, "own")), on_error="proceed", deadline=1.0
        )
        with FakeSmtpd(made) as smtpd:
            assert smtpd.connect().ehlo("x.example").code == 555


class TestLater:
    def test_a_member_may_answer_later_and_the_next_is_asked_then(self):
        contexts, asked = [], []

        def later(ctx, value):
            contexts.append(ctx)
            return ctx.defer()

        made = chain(
            asking("rcpt_to", later), asking("rcpt_to", lambda ctx, value: asked.append(value))
        )
        with FakeSmtpd(made) as smtpd:
            session = greeted(smtpd)
            session.mail_from("alice@example.net")
            pending = smtpd.start(session.rcpt_to, "bob@example.org")
            smtpd.settle()
            assert (len(contexts), asked) == (1, [])
            assert contexts[0].reply(rewrite("carol@example.org"))
            assert pending.get(timeout=5).ok
            assert asked == ["carol@example.org"]
            assert not contexts[0].reply(reject(550, "too late"))

    def test_from_a_thread(self):
        def later(ctx, value):
            thread = threading.Thread(target=lambda: ctx.reply(reject(550, "from a thread")))
            thread.start()
            return ctx.defer()

        with FakeSmtpd(chain(asking("ehlo", later))) as smtpd:
            assert smtpd.connect().ehlo("x.example").code == 550

    def test_a_reply_before_the_handler_returns_is_the_answer(self):
        def early(ctx, value):
            assert ctx.reply(reject(550, "early"))
            return proceed()

        with FakeSmtpd(chain(asking("ehlo", early))) as smtpd:
            assert smtpd.connect().ehlo("x.example").code == 550

    def test_one_that_never_answers_is_answered_by_its_policy(self):
        made = Chain("mx").add(
            asking("ehlo", lambda ctx, value: ctx.defer()), deadline=5.0, on_error="proceed"
        )
        with FakeSmtpd(made) as smtpd:
            session = smtpd.connect()
            pending = smtpd.start(session.ehlo, "x.example")
            smtpd.clock.advance(5.2)
            assert pending.get(timeout=5).ok


def test_a_handler_in_a_thread_runs_there():
    threads = []

    def note(ctx, value):
        threads.append(threading.get_ident())
        time.sleep(0.001)
        return reject(550, "no")

    with FakeSmtpd(chain(asking("ehlo", note, thread=True))) as smtpd:
        assert smtpd.connect().ehlo("x.example").code == 550
    assert threads != [threading.get_ident()]


class TestConditions:
    def test_a_member_is_asked_where_they_hold(self):
        asked = []

        def note(name):
            return asking("mail_from", lambda ctx, value: asked.append(name))

        made = Chain("mx")
        made.add(note("tls"), when={"tls": True})
        made.add(note("plain"), unless={"tls": True})
        made.add(note("function"), when=lambda ctx: ctx.session.identity == "client.example.net")
        with FakeSmtpd(made) as smtpd:
            greeted(smtpd).mail_from("alice@example.net")
        assert asked == ["plain", "function"]

    def test_the_rewritten_value_is_what_they_are_about(self):
        asked = []
        made = chain(answering("rcpt_to", rewrite("carol@example.com")))
        made.add(
            asking("rcpt_to", lambda ctx, value: asked.append(value)),
            when={"recipients": ["@example.com"]},
        )
        with FakeSmtpd(made) as smtpd:
            in_transaction(smtpd)
        assert asked == ["carol@example.com"]

    @pytest.mark.parametrize("key", ["when", "unless"])
    def test_one_that_raises_lets_the_member_run(self, key, caplog):
        def broken(ctx):
            raise LookupError("no table")

        made = Chain("mx").add(answering("ehlo", reject(550, "asked")), **{key: broken})
        with FakeSmtpd(made) as smtpd:
            assert smtpd.connect().ehlo("x.example").code == 550
        assert "a condition of answering (member 1) failed" in caplog.text


class TestState:
    def test_each_member_has_its_own_local_objects(self):
        log = []

        def member(name):
            app = Filter(name)
            app.local_session(lambda: [name], lambda made: log.append(("session", made)))
            app.local_message(lambda: [name], lambda made: log.append(("message", made)))

            @app.filter.rcpt_to
            def rcpt_to(ctx, recipient):
                ctx.session.local.append("s")
                ctx.tx.local.append("m")

            return app

        with FakeSmtpd(chain(member("a"), member("b"), answering("ehlo", None))) as smtpd:
            session = in_transaction(smtpd)
            session.rset()
            session.quit()
            smtpd.settle()
        assert log == [
            ("message", ["a", "m"]),
            ("message", ["b", "m"]),
            ("session", ["a", "s"]),
            ("session", ["b", "s"]),
        ]

    def test_an_object_that_cannot_be_made_or_deleted_hinders_no_other_member(self, caplog):
        log = []

        def fail(*args):
            raise LookupError("no room")

        def member(create, delete):
            app = Filter("storing")
            app.local_session(create, delete)
            app.filter.ehlo(lambda ctx, identity: log.append(ctx.session.local))
            return app

        made = chain(
            member(lambda: 1, lambda value: log.append("deleted 1")),
            member(lambda: fail(), lambda value: log.append("never")),
            member(lambda: 3, lambda value: fail()),
            member(lambda: 4, lambda value: log.append("deleted 4")),
        )
        with FakeSmtpd(made) as smtpd:
            greeted(smtpd).quit()
            smtpd.settle()
        assert log == [1, None, 3, 4, "deleted 1", "deleted 4"]
        assert "create of storing (member 2) failed: LookupError: no room" in caplog.text
        assert "delete of storing (member 3) failed: LookupError: no room" in caplog.text

    def test_a_field_outside_of_a_members_needs_raises_for_that_member_only(self):
        found = {}
        narrow = Filter("narrow", needs=Need.SRC)
        wide = Filter("wide")

        @narrow.filter.ehlo
        def narrow_ehlo(ctx, identity):
            found["src"] = str(ctx.session.src)
            with pytest.raises(NeedError):
                ctx.session.rdns  # noqa: B018

        @wide.filter.ehlo
        def wide_ehlo(ctx, identity):
            found["rdns"] = ctx.session.rdns

        with FakeSmtpd(chain(narrow, wide)) as smtpd:
            greeted(smtpd)
        assert found == {"src": "192.0.2.10", "rdns": "client.example.net"}

    def test_config_is_told_to_each_member(self):
        told = []
        first, second = answering("ehlo", None), answering("ehlo", None)
        for app in (first, second):
            app.on_config(lambda config: told.append(config.admd))
        with FakeSmtpd(chain(first, second)):
            assert first.config.smtp_session_timeout == 300
        assert len(told) == 2

    def test_closed_is_true_while_a_callback_of_the_session_runs(self):
        seen = []
        app = Filter("slow")

        @app.report.protocol_client
        def slow(ctx, command):
            if command.startswith("QUIT"):
                gevent.sleep(0)
                with gevent.Timeout(5):
                    while not ctx.session.closed:
                        gevent.sleep(0.001)
                seen.append(ctx.session.closed)

        with FakeSmtpd(chain(app)) as smtpd:
            greeted(smtpd).quit()
            smtpd.settle()
        assert seen == [True]


class TestReports:
    def test_reach_all_members_and_one_that_fails_hinders_nobody(self, caplog):
        told = []

        def member(name, fails=False):
            app = Filter(name)

            @app.report.link_identify
            def identify(ctx, method, identity):
                if fails:
                    raise ValueError("broken")
                told.append((name, identity))

            return app

        with FakeSmtpd(chain(member("a"), member("b", fails=True), member("c"))) as smtpd:
            greeted(smtpd)
            smtpd.settle()
        assert told == [("a", "client.example.net"), ("c", "client.example.net")]
        assert "ValueError: broken" in caplog.text


class TestMisuse:
    def test_a_chain_takes_filters(self):
        with pytest.raises(RegistrationError, match="made of filters"):
            Chain("mx").add("guard.py")
        with pytest.raises(RegistrationError, match="cannot be in a chain itself"):
            Chain("mx").add(Chain("inner"))

    def test_conditions_are_checked_when_it_is_made(self):
        with pytest.raises(RegistrationError, match=r"test_requests\.py:\d+: when: tsl: no such"):
            Chain("mx").add(answering("ehlo", None), when={"tsl": True})

    def test_nothing_is_added_while_it_runs(self):
        made = chain(answering("ehlo", None))
        with FakeSmtpd(made), pytest.raises(RegistrationError, match="runs already"):
            made.add(answering("ehlo", None))

    @pytest.mark.parametrize(
        ("hook", "register"),
        [
            ("filter.ehlo", lambda made: made.filter.ehlo(lambda ctx, identity: None)),
            ("report.tx_mail", lambda made: made.report.tx_mail(lambda ctx, *values: None)),
            ("message", lambda made: made.message(lambda ctx, message: None)),
            ("tap", lambda made: made.tap(lambda ctx, lines: None)),
            ("local_session", lambda made: made.local_session(dict)),
            ("local_message", lambda made: made.local_message(dict)),
        ],
    )
    def test_a_handler_of_the_chain_itself_is_refused_where_it_stands(self, hook, register):
        problem = rf"test_requests\.py:\d+: a chain has no {hook} of its own"
        with pytest.raises(RegistrationError, match=problem):
            register(Chain("mx"))


def test_the_log_names_the_member_that_decided(caplog):
    caplog.set_level("INFO")
    made = chain(answering("ehlo", None, "first"), answering("ehlo", reject(550, "no"), "second"))
    with FakeSmtpd(made) as smtpd:
        smtpd.connect().ehlo("x.example")
    assert "ehlo: reject('550 no') by second (member 2)" in logged(caplog)
