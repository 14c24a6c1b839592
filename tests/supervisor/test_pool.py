"""The pool of workers with processes that are none: what is started, when, and what goes."""

import selectors

import pytest

from greenfilter._control import WORN_OUT, Hello
from greenfilter._supervisor import Options, pool
from greenfilter._supervisor.lifecycle import State
from greenfilter._supervisor.pool import Pool
from greenfilter._supervisor.process import WorkerProcess
from greenfilter._supervisor.router import Router
from greenfilter._supervisor.watch import Watch

HELLO = Hello("fake", [], ["noop"], {}, {})
MORE = Hello("fake", [], ["noop", "quit"], {}, {})


class FakeLink:
    def __init__(self):
        self.closed, self.held, self.reading, self.pending = False, True, True, 0
        self.given = 0
        self.sent = []

    def send(self, data):
        self.sent.append(data)

    send_first = send

    def flush(self):
        pass

    def read_all(self):
        pass

    def close(self):
        self.closed = True


class FakeWorker(WorkerProcess):
    """A worker process that does what the test says."""

    def __init__(self, selector, options, code, now, receive, ended, sink):
        self.born = self.loaded = self.beat = now
        self.link = FakeLink()
        self.hello = self.mute = self.code = None
        self.state = State.LOADING
        self.sessions, self.waits = {}, {}
        self.kill_at, self.leave_by, self.bytes, self.tail = 0.0, 0.0, 0, b""

    @property
    def pid(self):
        return id(self)

    def bytes_read(self):
        return 0

    def exit_code(self):
        return self.code

    def end(self):
        return f"exit status {self.code}"

    def marked(self):
        return []

    def kill(self):
        self.code = -9 if self.code is None else self.code

    def wait(self, seconds):
        return self.code is not None


class World:
    """A pool, its clock, and all workers that it has started."""

    def __init__(self, monkeypatch, room=1000, **options):
        self.now, self.started, self.room = 0.0, [], room
        monkeypatch.setattr(pool, "WorkerProcess", self.spawn)
        monkeypatch.setattr(pool, "blame", lambda *_: self.events.append("blamed"))
        self.events = []
        router = Router(lambda data: None, lambda: self.events.append("answered"))
        router.clock = lambda: self.now
        selector = selectors.DefaultSelector()
        options = Options("fake", **options)
        self.pool = Pool(options, selector, router, None)
        self.watch = Watch(options, self.pool, router)
        selector.close()
        self.watch._memory = self
        self.pool.start()
        self.load()

    def read(self, pids):
        return {each.pid: each.bytes for each in self.started if each.pid in pids}

    def spawn(self, *arguments):
        if not self.room:
            raise OSError("no more processes")
        self.room -= 1
        self.started.append(FakeWorker(*arguments))
        return self.started[-1]

    def load(self, hello=HELLO):
        """Have all workers that still load say hello."""
        while waiting := [each for each in self.pool.workers if each.hello is None]:
            self.pool.on_hello(waiting[0], hello)

    def end(self, worker, code=1):
        worker.code = code
        self.watch.look_for_dead()

    def pass_time(self, seconds):
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            for worker in self.pool.workers:
                worker.beat = self.now
            self.watch.tick(self.now)

    def current(self):
        return [place.current for place in self.pool.places]


@pytest.fixture
def world(monkeypatch):
    return lambda **options: World(monkeypatch, **options)


def test_a_reload_while_one_place_waits_for_its_next_worker_reaches_all_places(world):
    pool = world(workers=2)
    for _ in range(2):
        pool.end(pool.current()[0])
        pool.load()
    old = pool.current()
    assert old[0] is None
    pool.pool.reload()
    pool.load()
    assert None not in pool.current()
    assert not set(old) & set(pool.current())


def test_a_reload_takes_the_place_of_a_worker_that_still_loads(world):
    pool = world(workers=2)
    pool.pool.reload()
    pool.end(pool.current()[0])  # another one with the old code is started at once
    late, coming = pool.current()[0], pool.pool.places[0].coming
    pool.pool.on_hello(coming, HELLO)
    pool.pool.on_hello(pool.pool.places[1].coming, HELLO)
    assert pool.current()[0] is coming
    assert late not in pool.pool.workers
    assert pool.pool._codes.coming is None


def test_a_worker_that_loads_for_long_has_time_to_answer_what_has_become_late_meanwhile(world):
    pool = world(hang_seconds=2.0)
    pool.end(pool.current()[0])
    (worker,) = pool.current()
    worker.mute = pool.now
    pool.pass_time(5)
    pool.load()
    pool.pass_time(1)
    assert pool.current() == [worker]
    pool.pass_time(2)
    assert worker not in pool.current()


def test_a_reload_that_cannot_start_all_workers_leaves_the_old_ones(world):
    pool = world(workers=2)
    old = pool.current()
    pool.room = 1
    pool.pool.reload()
    pool.load()
    pool.pass_time(4)
    assert [each for each in pool.started if each.code is None] == old == pool.current()
    pool.room = 1000
    pool.pool.reload()
    pool.load()
    assert not set(old) & set(pool.current())


def test_a_reload_during_the_replacement_of_one_worker_reaches_all_places(world):
    pool = world(workers=2, max_memory=100)
    old = pool.current()
    old[0].bytes = 150
    pool.pass_time(11)
    assert len(pool.started) == 3
    pool.pool.reload()
    pool.load()
    assert not set(old) & set(pool.current())


def test_a_reload_asked_for_while_the_filter_loads_is_done_after_that(world, monkeypatch):
    monkeypatch.setattr(World, "load", lambda self: None)
    pool = world()
    pool.pool.reload()
    assert len(pool.started) == 1
    pool.pool.on_hello(pool.started[0], HELLO)
    assert len(pool.started) == 2
    pool.pool.on_hello(pool.started[1], HELLO)
    assert pool.current() == [pool.started[1]]
    assert len(pool.started) == 2


def test_workers_of_reloads_that_others_have_overtaken_do_not_pile_up(world):
    pool = world()
    for _ in range(50):
        pool.pool.reload()
    assert sum(each.code is None for each in pool.started) == 2


@pytest.mark.parametrize("hello", [None, MORE])
def test_a_large_worker_whose_replacement_does_not_load_is_replaced_ever_more_rarely(world, hello):
    pool = world(max_memory=100)
    large = pool.current()[0]
    large.bytes = 150
    pool.pass_time(11)
    for _ in range(1000):
        if hello is not None:
            pool.load(hello)
        for each in pool.started[1:]:
            if each.code is None:
                pool.end(each)
        pool.pass_time(0.1)
    assert len(pool.started) < 15
    assert pool.current() == [large]
    pool.pass_time(40)
    pool.load()
    assert pool.current() == [pool.started[-1]]


def test_what_a_worker_owed_is_answered_before_anything_is_blamed_for_its_end(world):
    pool = world()
    pool.end(pool.current()[0])
    assert pool.events == ["answered", "blamed"]


def test_a_worker_that_says_it_is_worn_out_is_replaced_once_and_finishes_its_sessions(
    world, caplog
):
    pool = world()
    old = pool.current()[0]
    old.sessions[b"sid"] = None
    for _ in range(3):
        pool.pool._router.from_worker(old, WORN_OUT)
        pool.pool.listen()
    assert len(pool.started) == 2
    pool.load()
    pool.pool._router.from_worker(old, WORN_OUT)
    pool.pool.listen()
    assert pool.current() == [pool.started[1]]
    assert old.code is None
    assert caplog.text.count("has no threads left that do not hang: replaced") == 1


def test_a_first_worker_that_cannot_be_started_is_tried_again_and_ends_nothing(monkeypatch):
    world = World(monkeypatch, room=0)
    world.pass_time(1)
    assert not world.started
    world.room = 1
    world.pass_time(5)
    world.load()
    assert len(world.started) == 1
    assert world.pool.exit_code is None


def test_new_code_that_is_there_before_the_next_worker_of_the_old_takes_its_place(world):
    pool = world()
    (old,) = pool.current()
    pool.pool.reload()
    pool.end(old)
    loading, coming = pool.current()[0], pool.pool.places[0].coming
    assert loading is not old
    assert loading.hello is None
    pool.pool.on_hello(coming, HELLO)
    assert pool.current() == [coming]
    assert list(pool.pool.workers) == [coming]
    assert pool.pool._router._trusted == [coming]
    assert loading.exit_code() is not None


def test_an_error_of_ours_while_a_worker_is_lost_leaves_no_place_empty(world, monkeypatch):
    pool = world()
    (old,) = pool.current()
    monkeypatch.setattr(Pool, "_stop", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pool.end(old)
    pool.load()
    assert pool.current() not in ([old], [None])
    assert "answered" in pool.events
