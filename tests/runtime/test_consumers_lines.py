"""``lines``: a generator over a message, while the message comes."""

from __future__ import annotations

import gevent
import gevent.event
import pytest
from greenlet import GreenletExit

from greenfilter import DecisionError, Filter, HandlerTimeout, SessionClosed, disconnect, reject
from greenfilter.testing import FakeSmtpd

from .driving import (
    MESSAGE,
    TEMPFAIL,
    Pipe,
    begin,
    in_data,
    in_transaction,
    report,
    request,
    until,
)


def generating(function, **options):
    app = Filter("lines")
    app.lines(**options)(function)
    return app


def send(app, data=b"one\ntwo\nthree\n"):
    with FakeSmtpd(app, received=False) as smtpd:
        return in_transaction(smtpd).data(data)


def line_of(text, number=1):
    return request("data-line", number) + text


def test_output_is_streamed_before_the_last_line_has_come():
    def handler(ctx, lines):
        for line in lines:
            yield b"> " + line

    with Pipe(generating(handler)) as pipe:
        pipe.send(line_of("one"))
        until(lambda: pipe.data() == ["> one"])
        pipe.send(line_of("two"), line_of("."))
        until(lambda: pipe.data() == ["> one", "> two", "."])


def test_a_generator_that_never_ends_is_ended_at_its_deadline():
    def handler(ctx, lines):
        for number in range(1_000_000):
            pipe.clock._now += 0.001
            yield b"%d" % number

    with Pipe(generating(handler, deadline=5.0)) as pipe:
        pipe.clock.freeze()
        pipe.send(line_of("one"), line_of("."), request("commit"))
        until(lambda: pipe.results() == [f"reject|{TEMPFAIL}"])
        assert pipe.data()[-2:] == ["one", "."]


def test_lines_come_without_stuffing_and_go_with_it():
    seen = []

    def handler(ctx, lines):
        for line in lines:
            seen.append(line)
            yield line
        yield b"."
        yield b".."
        yield b""

    assert send(generating(handler), b".\n..a\nb\n").message == b".\r\n..a\r\nb\r\n.\r\n..\r\n\r\n"
    assert seen == [b".", b"..a", b"b"]


@pytest.mark.parametrize("data", [b"", b"one\n", b"\n", b".\n", b"a\rb\n\xff\xe9\n"])
def test_small_messages_pass(data):
    def handler(ctx, lines):
        yield from lines

    assert send(generating(handler), data).message == data.replace(b"\n", b"\r\n")


def test_returning_early_passes_the_rest():
    def handler(ctx, lines):
        yield b"> " + next(lines)

    assert send(generating(handler)).message == b"> one\r\ntwo\r\nthree\r\n"


def test_returning_at_once_passes_everything():
    def handler(ctx, lines):
        return
        yield

    assert send(generating(handler)).message == b"one\r\ntwo\r\nthree\r\n"


def test_a_returned_decision_is_applied_at_commit():
    def handler(ctx, lines):
        yield from lines
        return reject(554, "virus")

    assert send(generating(handler)).lines == ("554 virus",)


def test_a_decision_returned_early_is_applied_at_commit():
    def handler(ctx, lines):
        return disconnect(554, "virus")
        yield

    assert send(generating(handler)).lines == ("554 virus",)


@pytest.mark.parametrize("result", ["text", 7, b"line", []], ids=repr)
def test_a_return_value_that_is_no_decision_applies_the_policy(result):
    def handler(ctx, lines):
        yield from lines
        return result

    assert send(generating(handler)).lines == (TEMPFAIL,)


def test_a_handler_that_is_no_generator_applies_the_policy(caplog):
    app = generating(lambda ctx, lines: list(lines))
    assert send(app).lines == (TEMPFAIL,)
    assert "a lines handler yields lines" in caplog.text


def raising(place, error=None):
    def handler(ctx, lines):
        if place == "before":
            raise error or ValueError(place)
        for line in lines:
            if line == b"two" and place == "midway":
                raise error or ValueError(place)
            yield b"> " + line
        raise error or ValueError(place)

    return handler


@pytest.mark.parametrize("place", ["before", "midway", "after"])
def test_a_handler_that_raises_has_commit_refuse(place):
    assert send(generating(raising(place))).lines == (TEMPFAIL,)


@pytest.mark.parametrize("place", ["before", "midway", "after"])
def test_a_handler_that_raises_under_proceed_passes_the_original(place):
    reply = send(generating(raising(place), on_error="proceed"))
    assert reply.message == b"one\r\ntwo\r\nthree\r\n"


@pytest.mark.parametrize(
    "error", [SystemExit(), KeyboardInterrupt(), GreenletExit(), RecursionError()], ids=repr
)
def test_any_error_has_commit_refuse(error):
    assert send(generating(raising("midway", error))).lines == (TEMPFAIL,)


@pytest.mark.parametrize("wrong", ["text", b"a\nb", None, 7, reject(550, "no")], ids=repr)
def test_yielding_what_is_no_line_applies_the_policy(wrong):
    def handler(ctx, lines):
        for line in lines:
            yield wrong if line == b"two" else b"> " + line

    assert send(generating(handler)).lines == (TEMPFAIL,)
    assert send(generating(handler, on_error="proceed")).message == b"one\r\ntwo\r\nthree\r\n"


def test_a_handler_cannot_defer():
    errors = []

    def handler(ctx, lines):
        for call in (ctx.defer, ctx.reply):
            with pytest.raises(DecisionError) as error:
                call()
            errors.append(error.value)
        yield from lines

    assert send(generating(handler)).ok
    assert len(errors) == 2


def test_a_policy_that_lets_pass_holds_the_output_until_the_end():
    def handler(ctx, lines):
        for line in lines:
            yield b"> " + line

    with Pipe(generating(handler, on_error="proceed")) as pipe:
        pipe.send(line_of("one"), request("ehlo", 2, "fence"))
        until(lambda: pipe.results(2))
        assert pipe.data() == []
        pipe.send(line_of("."))
        until(lambda: pipe.data() == ["> one", "."])


def test_reports_are_dealt_with_in_order_while_the_handler_waits():
    app, seen = Filter("nested"), []

    @app.report.tx_data
    def data(ctx, message_id, result):
        seen.append(("tx-data", ctx.tx.message_id))

    @app.report.protocol_server
    def server(ctx, response):
        seen.append(("protocol-server", response))

    @app.lines
    def handler(ctx, lines):
        for line in lines:
            seen.append((line, ctx.tx.message_id))
            yield line

    with Pipe(app) as pipe:
        pipe.send(*begin(), line_of("one"))
        until(lambda: pipe.data() == ["one"])
        pipe.send(report("tx-data", 1, "0000abcd", "ok"))
        pipe.send(report("protocol-server", 1, "354 go"), line_of("two"), line_of("."))
        until(lambda: pipe.data() == ["one", "two", "."])
    assert seen == [
        (b"one", "0000abcd"),
        ("tx-data", "0000abcd"),
        ("protocol-server", "354 go"),
        (b"two", "0000abcd"),
    ]


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("on_error", ["tempfail", "proceed"])
def test_a_client_that_leaves_midway_ends_the_handler(swallows, on_error, caplog):
    got, ends = [], []

    def handler(ctx, lines):
        try:
            for line in lines:
                got.append(line)
                yield line
        except SessionClosed:
            ends.append("closed")
            if not swallows:
                raise
            yield b"more"
        finally:
            ends.append("finally")

    app = generating(handler, on_error=on_error)
    with FakeSmtpd(app, received=False) as smtpd:
        session = in_data(smtpd)
        session.data_lines([b"one", b"two"])
        until(lambda: got == [b"one", b"two"])
        session.disconnect()
        until(lambda: len(ends) == 2)
        assert in_transaction(smtpd).data(MESSAGE).ok
    assert ends == ["closed", "finally", "finally"]
    assert caplog.text == ""


def test_a_client_that_leaves_while_the_handler_blocks_can_end_it():
    got, ends = [], []

    def handler(ctx, lines):
        got.append(next(lines))
        try:
            gevent.event.Event().wait()
        finally:
            ends.append(ctx.session.closed)
        yield b"never"

    with FakeSmtpd(generating(handler, cancel_on_close=True), received=False) as smtpd:
        session = in_data(smtpd)
        session.data_lines([b"one"])
        until(lambda: got == [b"one"])
        session.disconnect()
        until(lambda: ends == [True])


def test_waiting_for_the_client_takes_no_time_of_the_handler():
    def handler(ctx, lines):
        for line in lines:
            yield b"> " + line

    with FakeSmtpd(generating(handler, deadline=5.0), received=False) as smtpd:
        session = in_data(smtpd)
        for line in (b"one", b"two", b"three"):
            session.data_lines([line])
            smtpd.clock.advance(60.0)
        assert session.data_end().message == b"> one\r\n> two\r\n> three\r\n"


def test_a_late_handler_has_commit_refuse():
    ends = []

    def handler(ctx, lines):
        yield next(lines)
        try:
            gevent.event.Event().wait()
        except HandlerTimeout:
            ends.append("late")
            raise

    with FakeSmtpd(generating(handler, deadline=5.0)) as smtpd:
        pending = smtpd.start(in_transaction(smtpd).data, MESSAGE)
        smtpd.clock.advance(5.2)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
    assert ends == ["late"]


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_handler_that_does_not_end_leaves_a_message_that_ends(at_the_end):
    gate, calls = gevent.event.Event(), []

    def handler(ctx, lines):
        calls.append(gevent.getcurrent())
        yield next(lines)
        while len(calls) == 1 and not gate.is_set():
            try:
                gate.wait()
            except BaseException:
                continue
        yield from lines

    with FakeSmtpd(generating(handler, deadline=5.0), received=False) as smtpd:
        session = in_data(smtpd)
        session.data_lines([b"one", b"two"])
        if at_the_end:
            pending = smtpd.start(session.data_end)
            smtpd.clock.advance(8.0)
        else:
            smtpd.clock.advance(8.0)
            gate.set()
            until(lambda: calls[0].dead)
            session.data_lines([b"three"])
            pending = smtpd.start(session.data_end)
        assert pending.get(timeout=5).lines == (TEMPFAIL,)
        assert session.mail_from("alice@example.net").ok
        assert session.rcpt_to("bob@example.org").ok
        gate.set()
        until(lambda: calls[0].dead)
        assert session.data(b"next\n").message == b"next\r\n"
    assert len(calls) == 2


def test_a_report_handler_that_does_not_end_leaves_the_message_refused():
    app, gate = Filter("nested"), gevent.event.Event()

    @app.lines(deadline=60.0)
    def handler(ctx, lines):
        yield from lines

    @app.report.protocol_server(deadline=5.0)
    def server(ctx, response):
        while not gate.is_set():
            try:
                gate.wait()
            except BaseException:
                continue

    with Pipe(app) as pipe:
        pipe.send(*begin(), line_of("one"))
        until(lambda: pipe.data() == ["one"])
        pipe.send(report("protocol-server", 1, "354 go"), line_of("two"), line_of("."))
        pipe.clock.advance(8.0)
        until(lambda: pipe.data()[-1] == ".")
        pipe.send(request("commit"))
        until(lambda: pipe.results() == [f"reject|{TEMPFAIL}"])
        gate.set()


def test_messages_that_wait_for_their_clients_take_no_room_of_others():
    app = generating(lambda ctx, lines: (line for line in lines))
    app.max_concurrency = 1
    with Pipe(app) as pipe:
        for number in range(50):
            pipe.send(line_of("one", number))
        until(lambda: len(pipe.lines) == 50)
        pipe.send(*(line_of(".", number) for number in range(50)))
        until(lambda: len(pipe.lines) == 100)


def test_a_message_above_max_message_bytes_passes_where_nothing_is_held():
    app = generating(lambda ctx, lines: (line for line in lines))
    app.max_message_bytes = 1000
    assert send(app, b"x" * 70 + b"\n" + b"y\n" * 2000).ok


def test_a_message_above_max_message_bytes_is_refused_where_it_is_held(caplog):
    app = generating(lambda ctx, lines: (line for line in lines), on_error="proceed")
    app.max_message_bytes = 1000
    assert send(app, b"y\n" * 2000).lines == (TEMPFAIL,)
    assert "above the limit of 1000 bytes" in caplog.text


def test_two_messages_of_a_session_each_get_a_handler():
    def handler(ctx, lines):
        yield b"id " + ctx.tx.message_id.encode()
        yield from lines

    with FakeSmtpd(generating(handler), received=False) as smtpd:
        session = in_transaction(smtpd)
        first = session.data(b"one\n").message
        assert session.mail_from("alice@example.net").ok
        assert session.rcpt_to("bob@example.org").ok
        second = session.data(b"two\n").message
    assert first.endswith(b"\r\none\r\n")
    assert second.endswith(b"\r\ntwo\r\n")
    assert first[:11] != second[:11]


@pytest.mark.parametrize("on_error", ["tempfail", "proceed"])
def test_output_waits_for_a_slow_reader_and_that_time_does_not_count(on_error):
    produced = []

    def handler(ctx, lines):
        yield from lines
        for number in range(60_000):
            produced.append(number)
            yield b"x" * 1000

    with Pipe(generating(handler, deadline=5.0, on_error=on_error), reading=False) as pipe:
        pipe.send(line_of("one"), line_of("."))
        wire = pipe.runtime._channel
        until(lambda: not wire._drained.is_set())
        pipe.clock.advance(60.0)
        assert len(produced) < 10_000 or on_error == "proceed"
        assert len(wire._stuck) + sum(map(len, wire._out)) < 4 << 20
        pipe.reading = True
        until(lambda: pipe.lines and pipe.lines[-1].endswith("|."), 20)
        pipe.send(request("commit"))
        until(lambda: pipe.results() == ["proceed"])
    assert len(pipe.data()) == 60_002
