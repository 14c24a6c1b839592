"""Runners are kept, used again, and bounded."""

from __future__ import annotations

import time
from contextvars import ContextVar

import gevent
import gevent.event
import gevent.local
import pytest

from greenfilter import Filter
from greenfilter._runtime.runners import Runners
from greenfilter.testing import FakeSmtpd

from .driving import in_transaction, until

_sleep = time.sleep  # in this process it waits in C, as a blocking library does


class Task:
    def __init__(self, work=lambda runner: None):
        self.runner = None
        self._work = work

    def work(self, runner):
        self.runner = runner
        self._work(runner)
        self.runner = None


class Pool:
    def __init__(self, limit=100):
        self.told = []
        full, room = (lambda: self.told.append("full")), (lambda: self.told.append("room"))
        self.runners = Runners(limit, full, room)

    def start(self, *tasks):
        self.runners.ready.extend(tasks)
        self.runners.schedule()


def test_tasks_that_do_not_block_share_one_worker_in_order():
    pool, seen = Pool(), []
    pool.start(*(Task(lambda runner, n=n: seen.append((n, runner))) for n in range(5)))
    until(lambda: len(seen) == 5)
    assert [number for number, _ in seen] == list(range(5))
    assert len({id(runner) for _, runner in seen}) == 1
    assert not pool.runners.busy


def test_a_task_that_blocks_holds_up_no_other_and_its_worker_is_used_again():
    pool, gate, seen = Pool(), gevent.event.Event(), []
    pool.start(Task(lambda runner: gate.wait() and seen.append("slow")))
    pool.start(*(Task(lambda runner: seen.append("quick")) for _ in range(3)))
    until(lambda: seen == ["quick"] * 3)
    assert len(pool.runners.busy) == 1
    gate.set()
    until(lambda: not pool.runners.busy)
    runners = set(pool.runners._idle)
    pool.start(Task(lambda runner: seen.append(runner)))
    until(lambda: len(seen) == 5)
    assert seen[-1] in runners


def test_no_more_tasks_run_than_the_limit():
    pool, gate, inside = Pool(limit=2), gevent.event.Event(), []

    def work(runner):
        inside.append(runner)
        gate.wait()

    pool.start(*(Task(work) for _ in range(5)))
    until(lambda: pool.told == ["full"])
    assert len(inside) == 2
    gate.set()
    until(lambda: len(inside) == 5 and not pool.runners.busy)
    assert pool.told[-1] == "room"
    assert len(pool.runners._idle) == 2


def test_parked_tasks_do_not_count_and_go_on_when_told():
    pool, seen = Pool(limit=1), []
    tasks = []

    def work(runner):
        pool.runners.park(gevent.get_hub().switch)
        seen.append("parked")

    for _ in range(10):
        tasks.append(Task(work))
    pool.start(*tasks)
    until(lambda: all(task.runner for task in tasks))
    pool.start(Task(lambda runner: seen.append("other")))
    until(lambda: seen == ["other"])
    pool.start(*tasks)
    until(lambda: seen == ["other", *["parked"] * 10])
    until(lambda: not pool.runners.busy)


def test_a_worker_survives_an_error_of_a_task(caplog):
    pool, seen = Pool(), []

    def fail(runner):
        raise SystemExit

    pool.start(Task(fail), Task(lambda runner: seen.append(1)))
    until(lambda: seen == [1])
    assert "a runner survived" in caplog.text


def test_an_abandoned_worker_makes_room_and_ends_with_its_task():
    pool, gate, seen = Pool(limit=1), gevent.event.Event(), []
    deaf = Task(lambda runner: gate.wait())
    pool.start(deaf, Task(lambda runner: seen.append(1)))
    until(lambda: pool.told == ["full"])
    runner = deaf.runner
    pool.runners.abandon(runner)
    until(lambda: seen == [1])
    gate.set()
    until(lambda: runner.greenlet.dead)
    assert runner not in pool.runners._idle


def test_few_idle_workers_are_kept():
    pool, gate = Pool(limit=10_000), gevent.event.Event()
    pool.start(*(Task(lambda runner: gate.wait()) for _ in range(1000)))
    until(lambda: len(pool.runners.busy) == 1000)
    gate.set()
    until(lambda: not pool.runners.busy)
    assert len(pool.runners._idle) == 256


@pytest.mark.parametrize("blocks", [False, True])
def test_what_a_task_leaves_in_its_greenlet_is_not_there_for_the_next(blocks):
    pool, local, var, found = Pool(), gevent.local.local(), ContextVar("var", default=None), []

    def work(runner):
        found.append((getattr(local, "value", None), var.get()))
        local.value = "of a local"
        var.set("of a context variable")
        if blocks:
            gevent.sleep(0)

    for _ in range(3):
        pool.start(Task(work), Task(work))
        until(lambda: not pool.runners.ready and not pool.runners.busy)
    assert found == [(None, None)] * 6
    assert not pool.runners._idle


def test_a_worker_that_has_set_context_variables_only_is_used_again():
    pool, var, seen = Pool(), ContextVar("var", default=None), []

    def work(runner):
        seen.append((runner, var.get()))
        var.set("set")

    for _ in range(2):
        pool.start(Task(work))
        until(lambda: not pool.runners.ready and not pool.runners.busy)
    assert seen[0] == seen[1]


def test_the_loop_gets_its_turn_between_tasks_that_block():
    """Ten that each block for 30 ms: other callbacks of the loop run in between."""
    runners = Runners(100, lambda: None, lambda: None)
    events = []

    class Blocking:
        runner = None

        def work(self, runner):
            time.sleep(0.03)  # in this process it blocks the loop
            events.append("task")

    timer = gevent.get_hub().loop.timer(0.001, 0.001)
    timer.start(lambda: events.append("loop"))
    runners.ready.extend(Blocking() for _ in range(10))
    runners.schedule()
    until(lambda: events.count("task") == 10)
    timer.close()
    gaps = "".join(event[0] for event in events).split("l")
    assert max(map(len, gaps)) <= 2  # two timers of one round come in any order


@pytest.mark.parametrize("kind", ["data_line", "lines", "all lines first", "tap", "raw_line"])
def test_the_loop_gets_its_turn_between_lines_that_block(kind):
    """Thirty lines in one piece that block for 15 ms each: the loop is kept for far less."""
    app, at, turns = Filter("lines"), [], []

    def each(ctx, line):
        at.append(time.monotonic())
        _sleep(0.015)

    def generator(ctx, lines):
        for line in lines:
            each(ctx, line)
            yield line

    def list_first(ctx, lines):
        kept = []
        for line in lines:
            each(ctx, line)
            kept.append(line)
        yield from kept

    def tap(ctx, lines):
        for line in lines:
            each(ctx, line)

    def raw(ctx, write):
        def give(line):
            each(ctx, line)
            write(line)

        return give

    handlers = {"lines": generator, "all lines first": list_first, "tap": tap, "raw_line": raw}
    if kind == "data_line":
        app.filter.data_line(each)
    elif kind == "tap":
        app.tap(tap)
    elif kind == "raw_line":
        app._raw_line(raw)
    else:
        app.lines(handlers[kind])
    lines = [b"Subject: x", b"", *(b"line %d" % number for number in range(28))]
    with FakeSmtpd(app) as smtpd:
        session = in_transaction(smtpd)
        timer = gevent.get_hub().loop.timer(0.001, 0.001)
        timer.start(lambda: turns.append(time.monotonic()))
        assert session.data(b"".join(line + b"\r\n" for line in lines)).ok
        timer.close()
    assert session.delivered[0].data.split(b"\r\n")[-len(lines) - 1 : -1] == lines
    between = [turn for turn in turns if at[0] < turn < at[-1]]
    assert len(between) >= 2


def test_the_loop_gets_its_turn_between_tasks_that_wake_up_together_and_block():
    """What reaches them at once is dealt out; each goes on once, in the order of the waits."""
    pool, events, gate = Pool(), [], gevent.event.Event()

    def work(number):
        gate.wait()
        time.sleep(0.03)  # in this process it blocks the loop
        events.append(number)

    pool.start(*(Task(lambda runner, n=n: work(n)) for n in range(10)))
    until(lambda: len(pool.runners.busy) == 10)
    timer = gevent.get_hub().loop.timer(0.001, 0.001)
    timer.start(lambda: events.append("loop"))
    gate.set()
    until(lambda: len(events) - events.count("loop") == 10)
    timer.close()
    assert [event for event in events if event != "loop"] == list(range(10))
    gaps = "".join(str(event)[0] for event in events).split("l")
    assert max(map(len, gaps)) <= 2  # the timer comes before or after them when the loop goes round
    until(lambda: not pool.runners.busy)


def test_a_task_that_is_interrupted_before_its_turn_does_not_wake_up_twice():
    pool, events, gate = Pool(), [], gevent.event.Event()
    waiting = Task(lambda runner: wait())

    def block():
        gate.wait()
        time.sleep(0.05)
        gevent.get_hub().loop.run_callback(interrupt)  # after the other was woken too

    def interrupt():
        assert waiting.runner.greenlet.woken is not None
        waiting.runner.throw(KeyError())

    def wait():
        try:
            gate.wait()
        except KeyError:
            gevent.sleep(0.05)
            events.append("interrupted")

    pool.start(Task(lambda runner: block()), waiting)
    until(lambda: len(pool.runners.busy) == 2)
    gate.set()
    until(lambda: not pool.runners.busy)
    assert events == ["interrupted"]
    assert not pool.runners.turn.late
