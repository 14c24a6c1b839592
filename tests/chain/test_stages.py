"""One message through a chain: stages that stream, fail, refuse and are ended."""

from __future__ import annotations

import threading
from hashlib import blake2b

import gevent
import pytest
from gevent.event import Event

from greenfilter import (
    DROP,
    Chain,
    Filter,
    SessionClosed,
    disconnect,
    junk,
    reject,
)
from greenfilter.testing import FakeSmtpd

from ..benchmarks import peers, procinfo
from ..benchmarks.cases.big import HEADER, PEAK_MIB, small_messages
from ..benchmarks.driver import FilterProcess
from ..benchmarks.wire import Sessions
from .driving import TEMPFAIL, answering, chain, in_transaction

DATA = b"Subject: hello\r\n\r\none\r\n.two\r\n"


def editing(suffix: bytes, **options) -> Filter:
    """A stage that adds something to each line."""
    app = Filter(f"editing{suffix.decode()}")

    @app.lines(**options)
    def edit(ctx, lines):
        for line in lines:
            yield line + suffix

    return app


def failing(after: int, **options) -> Filter:
    """A stage that fails after so many lines."""
    app = Filter("failing")

    @app.lines(**options)
    def fail(ctx, lines):
        for count, line in enumerate(lines):
            if count == after:
                raise ValueError("broken")
            yield b"edited " + line

    return app


def whole(function, name="whole", **options) -> Filter:
    app = Filter(name)
    app.message(**options)(function)
    return app


def tapping(function, name="tapping", **options) -> Filter:
    app = Filter(name)
    app.tap(**options)(function)
    return app


def send(made: Chain, data: bytes = DATA):
    with FakeSmtpd(made, received=False) as smtpd:
        return in_transaction(smtpd).data(data)


class TestStages:
    def test_lines_go_through_all_of_them_in_order(self):
        last = Filter("last")

        @last.filter.data_line
        def each(ctx, line):
            return DROP if line.startswith(b"one") else [line, b"+"] if line[:1] == b"." else None

        made = chain(editing(b"1"), editing(b"2"), last)
        expected = b"Subject: hello12\r\n12\r\n.two12\r\n+\r\n"
        assert send(made).message == expected

    def test_of_each_kind_can_be_combined(self):
        def sign(ctx, message):
            message.headers.prepend("X-Size", str(message.size))

        made = chain(editing(b"!"), whole(sign), editing(b"?"), whole(lambda ctx, message: None))
        message = send(made).message
        assert message.startswith(b"X-Size: 33?\r\nSubject: hello!?\r\n")

    def test_nothing_changes_where_none_edits(self):
        made = chain(
            whole(lambda ctx, message: None), tapping(lambda ctx, lines: list(lines) and None)
        )
        made.add(editing(b""))
        assert send(made).message == DATA

    @pytest.mark.parametrize("data", [b"", b"\r\n", b".\r\n", b"..\r\n\xff\xfe a\rb\r\n"])
    def test_bytes_are_kept(self, data):
        made = chain(editing(b""), whole(lambda ctx, message: None), editing(b""))
        assert send(made, data).message == data

    def test_a_generator_that_returns_early_leaves_the_rest_unchanged(self):
        app = Filter("early")

        @app.lines
        def first_only(ctx, lines):
            yield next(lines).upper()

        assert send(chain(app, editing(b"!"))).message == DATA.replace(
            b"Subject: hello", b"SUBJECT: HELLO"
        ).replace(b"\r\n", b"!\r\n")

    def test_a_stage_sees_the_message_before_it_has_ended(self):
        seen = []
        app = Filter("eager")

        @app.lines
        def count(ctx, lines):
            for number, line in enumerate(lines):
                seen.append(number)
                yield line

        with FakeSmtpd(chain(editing(b""), app)) as smtpd:
            session = in_transaction(smtpd)
            assert session.data_begin().code == 354
            session.data_lines([b"x" * 70] * 2000)
            smtpd.settle()
            assert len(seen) > 1000
            session.data_end()

    def test_a_message_handler_may_run_in_a_thread(self):
        threads = []

        def note(ctx, message):
            threads.append(threading.get_ident())
            return message.raw.upper()

        assert send(chain(whole(note, thread=True), editing(b""))).message == DATA.upper()
        assert threads != [threading.get_ident()]

    def test_data_lines_may_be_edited_in_a_thread(self):
        app = Filter("thread")
        app.filter.data_line(thread=True)(lambda ctx, line: line.upper())
        assert send(chain(app, editing(b""))).message == DATA.upper()


class TestTaps:
    def test_see_what_their_stage_gets(self):
        seen = {}

        def note(name):
            def tap(ctx, lines):
                seen[name] = list(lines)

            return tap

        both = editing(b"2")
        both.tap(note("second"))
        send(chain(tapping(note("first")), editing(b"1"), both, tapping(note("last"))))
        assert [seen[name][2] for name in ("first", "second", "last")] == [
            b"one",
            b"one1",
            b"one12",
        ]

    def test_commit_waits_for_them_and_applies_what_they_decide(self):
        def slow(ctx, lines):
            for _ in lines:
                gevent.sleep(0.001)
            return reject(554, "virus")

        assert send(chain(tapping(slow), editing(b""))).lines == ("554 virus",)


class TestRefusals:
    def test_the_earliest_members_wins(self):
        made = chain(
            tapping(lambda ctx, lines: list(lines) and reject(551, "first")),
            whole(lambda ctx, message: reject(552, "second")),
            answering("commit", reject(553, "third")),
        )
        assert send(made).lines == ("551 first",)

    def test_at_commit_of_an_earlier_member_goes_before_that_of_a_later_stage(self):
        made = chain(
            answering("commit", reject(551, "first")),
            whole(lambda ctx, message: reject(552, "second")),
        )
        assert send(made).lines == ("551 first",)

    def test_end_the_later_stages_and_their_taps(self):
        ended = []
        later = Filter("later")

        @later.lines
        def lines(ctx, lines):
            try:
                yield from lines
            except SessionClosed:
                ended.append("lines")
                raise

        @later.tap
        def tap(ctx, lines):
            try:
                list(lines)
            except SessionClosed:
                ended.append("tap")
                raise

        never = whole(lambda ctx, message: ended.append("message"))
        refusing = Filter("refusing")

        @refusing.lines
        def refuse(ctx, lines):
            for _ in range(300):  # more than a batch: the later ones have begun
                yield next(lines)
            return disconnect(554, "no")

        reply = send(chain(refusing, later, never), b"line\r\n" * 1000)
        assert reply.lines == ("554 no",)
        assert sorted(ended) == ["lines", "tap"]

    def test_the_earlier_stages_see_the_rest(self):
        counts = []

        def count(ctx, lines):
            counts.append(sum(1 for _ in lines))

        refusing = Filter("refusing")

        @refusing.lines
        def refuse(ctx, lines):
            yield next(lines)
            return reject(554, "no")

        assert send(chain(tapping(count), refusing), b"line\r\n" * 3000).code == 554
        assert counts == [3000]

    def test_are_not_legal_as_anything_else(self, caplog):
        made = chain(whole(lambda ctx, message: 7, "seven"))
        assert send(made).lines == (TEMPFAIL,)
        assert "returned int" in caplog.text


class TestFailures:
    @pytest.mark.parametrize("after", [0, 2])
    def test_a_stage_that_lets_mail_pass_hands_on_what_it_got(self, after, caplog):
        made = Chain("mx").add(editing(b"1")).add(failing(after), on_error="proceed")
        made.add(editing(b"2"))
        assert send(made).message == DATA.replace(b"\r\n", b"12\r\n")
        assert "ValueError: broken" in caplog.text

    def test_the_policy_is_applied_at_commit(self):
        made = chain(failing(0, on_error=reject(555, "own policy")), editing(b""))
        assert send(made).lines == ("555 own policy",)

    def test_one_that_fails_when_a_part_had_left_is_refused_for_now_whatever_its_policy(self):
        made = chain(failing(600, on_error=reject(555, "own policy")), editing(b""))
        assert send(made, b"line\r\n" * 1000).lines == (TEMPFAIL,)

    def test_a_message_handler_that_fails_hands_on_what_it_got(self):
        def fail(ctx, message):
            message.headers.prepend("X-Half", "done")
            raise ValueError

        made = Chain("mx").add(whole(fail), on_error="proceed").add(editing(b"!"))
        assert send(made).message == DATA.replace(b"\r\n", b"!\r\n")

    def test_a_data_line_handler_that_fails_hands_on_what_it_got(self):
        app = Filter("lines")

        @app.filter.data_line
        def each(ctx, line):
            if line == b"one":
                raise ValueError
            return line.upper()

        assert send(Chain("mx").add(app, on_error="proceed")).message == DATA
        assert send(chain(app)).lines == (TEMPFAIL,)

    def test_a_message_above_the_limit_is_refused(self):
        made = Chain("mx", max_message_bytes=1000)
        made.add(whole(lambda ctx, message: None), on_error="proceed")
        assert send(made, b"x" * 70 + b"\r\n" + b"y" * 990 + b"\r\n").code in (451, 552)

    def test_one_that_passes_its_deadline_is_ended(self):
        app = Filter("slow")

        @app.lines
        def slow(ctx, lines):
            for line in lines:
                gevent.sleep(3600)
                yield line

        made = Chain("mx").add(editing(b"1")).add(app, deadline=5.0, on_error="proceed")
        made.add(editing(b"2"))
        with FakeSmtpd(made, received=False) as smtpd:
            session = in_transaction(smtpd)
            pending = smtpd.start(session.data, DATA)
            smtpd.clock.advance(4.0)
            assert not pending.ready()
            smtpd.clock.advance(1.5)
            assert pending.get(timeout=5).message == DATA.replace(b"\r\n", b"12\r\n")

    def test_time_of_the_other_stages_is_not_counted(self):
        gates = {"a": Event(), "b": Event()}

        def slow(name):
            return whole(lambda ctx, message: gates[name].wait() and None, name, deadline=5.0)

        with FakeSmtpd(chain(slow("a"), editing(b"", deadline=2.0), slow("b"))) as smtpd:
            session = in_transaction(smtpd)
            pending = smtpd.start(session.data, DATA)
            for gate in gates.values():
                smtpd.clock.advance(4.0)
                gate.set()
            assert pending.get(timeout=5).ok

    def test_a_client_that_leaves_ends_all_stages_without_a_word(self, caplog):
        made = chain(editing(b"1"), editing(b"2"), whole(lambda ctx, message: None))
        with FakeSmtpd(made) as smtpd:
            session = in_transaction(smtpd)
            session.data_begin()
            session.data_lines([b"x"] * 500)
            smtpd.settle()
            session.disconnect()
            smtpd.settle()
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []


class TestJunk:
    def test_found_in_the_message_marks_it_on_top(self):
        def found(ctx, message):
            message.headers.prepend("X-Score", "9")
            return junk()

        made = chain(editing(b""), whole(found), whole(lambda ctx, message: junk()))
        message = send(made).message
        assert message == b"X-Spam: Yes\r\nX-Score: 9\r\n" + DATA


class TestConditions:
    def test_of_a_message_are_evaluated_once_and_hold_through_commit(self):
        calls, asked = [], []

        def condition(ctx):
            calls.append(ctx.phase)
            return len(calls) == 1

        app = editing(b"!")
        app.filter.commit(lambda ctx: asked.append(True))
        made = Chain("mx").add(app, when=condition)
        assert send(made).message == DATA.replace(b"\r\n", b"!\r\n")
        assert (calls, asked) == (["data_line"], [True])

    def test_when_takes_any_recipient_and_unless_all(self):
        made = Chain("mx")
        made.add(editing(b"1"), when={"recipients": ["@example.org"]})
        made.add(editing(b"2"), unless={"recipients": ["@example.org"]})
        made.add(editing(b"3"), unless={"recipients": ["@example.org", "@example.com"]})
        with FakeSmtpd(made, received=False) as smtpd:
            session = in_transaction(smtpd)
            session.rcpt_to("carol@example.com")
            assert session.data(b"x\r\n").message == b"x12\r\n"

    def test_a_member_that_does_not_see_the_message_is_not_asked_at_commit(self):
        made = Chain("mx").add(answering("commit", reject(550, "no")), when={"tls": True})
        made.add(editing(b""))
        assert send(made).ok


def test_a_second_message_of_a_session_is_dealt_with_like_the_first():
    made = chain(editing(b"1"), whole(lambda ctx, message: None))
    with FakeSmtpd(made, received=False) as smtpd:
        session = in_transaction(smtpd)
        session.data(b"a\r\n")
        session.mail_from("alice@example.net")
        session.rcpt_to("bob@example.org")
        session.data(b"b\r\n")
        assert [message.data for message in smtpd.messages] == [b"a1\r\n", b"b1\r\n"]


class TestLargeMessage:
    """100 MB through a chain of three filters of three kinds, in a process of its own."""

    LINE, COUNT = b"x" * 998, 100_000

    def test_its_memory_is_bounded(self, tmp_path):
        command = peers.greenfilter("chain-big.toml")
        with FilterProcess(command, tmp_path / "log") as process:
            process.exchange(small_messages(process.hooks, 2))
            pids = process.pids()
            procinfo.reset_peak(pids)
            idle = procinfo.resident(pids)
            for step in Sessions(process.hooks).steps(77):
                *others, (line, answer) = step
                process.send(b"".join(other for other, _ in others))
                if b"|data-line|" in line:
                    self._stream(process, line, answer)
                else:
                    process.send(line)
                    assert not answer or process.receive_lines(1) == [answer.rstrip()]
            assert procinfo.peak(pids) - idle < PEAK_MIB << 20

    def _stream(self, process: FilterProcess, end: bytes, ended: bytes) -> None:
        """Send the message, and look at what comes of it."""
        asks, answers = end.removesuffix(b".\n"), ended.removesuffix(b".\n")
        expected, received = blake2b(2 * (answers + HEADER + b"\n")), blake2b()

        def send() -> None:
            for lines in [[b""], *[[self.LINE] * 1000] * (self.COUNT // 1000)]:
                process.send(b"".join(asks + line + b"\n" for line in lines))
                expected.update(b"".join(answers + line + b"\n" for line in lines))
            process.send(end)
            expected.update(ended)

        sender = threading.Thread(target=send)
        sender.start()
        tail = b""
        while not tail.endswith(b"\n" + ended):
            data = process.socket.recv(1 << 20)
            assert data, process.tail()
            received.update(data)
            tail = (tail + data)[-len(ended) - 1 :]
        sender.join()
        assert received.digest() == expected.digest()
