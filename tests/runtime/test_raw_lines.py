"""``raw_line``, which greenfilter.osmtpd is made of; its callbacks are tested with that."""

from __future__ import annotations

import gevent.event

from greenfilter import Filter

from .driving import TEMPFAIL, Pipe, request, until


def raw(function, **options):
    app = Filter("raw")
    app._raw_line(**options)(function)
    return app


def message(*lines, number=1):
    return [request("data-line", number) + line for line in (*lines, ".")]


def test_lines_are_written_as_the_handler_does():
    def handler(ctx, write):
        return lambda line: [write(line), line == b".." and write(b"more")]

    with Pipe(raw(handler)) as pipe:
        pipe.send(*message("one", ".."))
        until(lambda: pipe.data() == ["one", "..", "more", "."])


def test_a_handler_that_does_not_end_leaves_a_message_that_ends():
    gate = gevent.event.Event()

    def deaf(line):
        while not gate.is_set():
            try:
                gate.wait()
            except BaseException:
                continue

    with Pipe(raw(lambda ctx, write: deaf, deadline=5.0)) as pipe:
        pipe.send(*message("one"))
        pipe.clock.advance(9.0)
        until(lambda: pipe.data()[-1:] == ["."])
        pipe.send(request("commit"))
        until(lambda: pipe.results() == [f"reject|{TEMPFAIL}"])
        pipe.clock.advance(30.0)
        gate.set()


def test_deadlines_hold_when_smtpd_goes_on_before_the_message_has_ended(caplog):
    app = raw(lambda ctx, write: lambda line: None, deadline=5.0)
    app.filter.ehlo(deadline=5.0)(lambda ctx, identity: ctx.defer())
    with Pipe(app) as pipe:
        pipe.send(*message("one"), request("commit"), request("ehlo", 2, "x"))
        until(lambda: pipe.results())
        pipe.clock.advance(6.0)
        until(lambda: pipe.results(2) == [f"reject|{TEMPFAIL}"])
        assert not list(pipe.runtime._answers.guard.owes())


def test_deadlines_hold_when_another_message_begins_before_the_first_has_ended():
    gate = gevent.event.Event()
    app = raw(lambda ctx, write: lambda line: line == b"." and gate.wait(), deadline=5.0)
    app.filter.ehlo(deadline=5.0)(lambda ctx, identity: ctx.defer())
    with Pipe(app) as pipe:
        pipe.send(*message("one"), request("data-line") + "two", request("ehlo", 2, "x"))
        until(lambda: pipe.runtime._connection.sessions)
        pipe.clock.advance(6.0)
        until(lambda: pipe.results(2) == [f"reject|{TEMPFAIL}"])
        gate.set()


def test_waiting_for_a_slow_reader_takes_no_time_of_the_handler():
    def handler(ctx, write):
        def give(line):
            if line == b".":
                for _ in range(60_000):
                    write(b"x" * 1000)
            write(line)

        return give

    with Pipe(raw(handler, deadline=5.0), reading=False) as pipe:
        pipe.send(*message("one"))
        wire = pipe.runtime._channel
        until(lambda: not wire._drained.is_set())
        pipe.clock.advance(4.0)
        assert len(wire._stuck) + sum(map(len, wire._out)) < 8 << 20
        pipe.reading = True
        until(lambda: pipe.lines and pipe.lines[-1].endswith("|."), 20)
        assert len(pipe.data()) == 60_002
