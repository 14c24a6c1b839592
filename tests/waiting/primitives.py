"""Each primitive in all four directions, in one patched process: ``python -m`` this module.

Prints a JSON object: the name of each case, and None or what went wrong.
"""

from __future__ import annotations

import json
import sys
import traceback

from greenfilter._waiting import patch

patch()

import os  # noqa: E402
import queue  # noqa: E402
import random  # noqa: E402
import select  # noqa: E402
import selectors  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from _queue import SimpleQueue as NativeQueue  # noqa: E402
from concurrent.futures import Future  # noqa: E402

import gevent  # noqa: E402
from gevent.monkey import get_original  # noqa: E402

start_native = get_original("_thread", "start_new_thread")
LONG = 20.0  # seconds after which a wake-up counts as lost
SHORT = 0.05
KEPT = []


class Side:
    """Something that runs beside this greenlet: another one, or a native thread."""

    def __init__(self, kind, fn):
        self.result = self.error = None
        self.done = NativeQueue()
        self.fn = fn
        if kind == "greenlet":
            gevent.spawn(self.run)
        else:
            start_native(self.run, ())

    def run(self):
        KEPT.append(gevent.getcurrent())  # an RLock knows its owner by the id() of that
        try:
            self.result = self.fn()
        except BaseException:
            self.error = traceback.format_exc()
        self.done.put(None)

    def join(self):
        end = time.monotonic() + LONG
        while self.done.empty():
            assert time.monotonic() < end, "a wake-up was lost"
            gevent.sleep(0.001)
        assert self.error is None, self.error
        return self.result


def lock():
    it = threading.Lock()
    it.acquire()
    return it.acquire, it.release, lambda: it.acquire(timeout=SHORT), [True, False]


def rlock():
    it = threading.RLock()
    owner = Side("thread", it.acquire)  # so that neither side has it
    owner.join()
    # The side that wakes releases what the other one waits for, whoever owns it.
    return it.acquire, it._block.release, lambda: it.acquire(timeout=SHORT), [True, False]


def condition():
    it = threading.Condition()
    state = []

    def wait():
        with it:
            return it.wait_for(lambda: state, LONG) and state.pop()

    def wake():
        with it:
            state.append(True)
            it.notify()

    def wait_in_vain():
        with it:
            return it.wait(SHORT)

    return wait, wake, wait_in_vain, [True, False]


def event():
    it = threading.Event()
    return lambda: it.wait(LONG), it.set, lambda: threading.Event().wait(SHORT), [True, False]


def semaphore():
    it = threading.Semaphore(0)
    return it.acquire, it.release, lambda: it.acquire(timeout=SHORT), [True, False]


def bounded_semaphore():
    it = threading.BoundedSemaphore(1)
    it.acquire()
    return it.acquire, it.release, lambda: it.acquire(timeout=SHORT), [True, False]


def barrier():
    it = threading.Barrier(2)

    def wait_in_vain():
        try:
            return threading.Barrier(2).wait(SHORT)
        except threading.BrokenBarrierError:
            return "broken"

    return lambda: it.wait(LONG) in (0, 1), lambda: it.wait(LONG), wait_in_vain, [True, "broken"]


def of_queue(kind):
    it = kind()

    def wait_in_vain():
        try:
            return it.get(timeout=SHORT)
        except queue.Empty:
            return "empty"

    return it.get, lambda: it.put(7), wait_in_vain, [7, "empty"]


def full_queue():
    it = queue.Queue(maxsize=1)
    it.put(1)

    def wait():
        it.put(2)
        return True

    def wait_in_vain():
        try:
            return it.put(3, timeout=SHORT)
        except queue.Full:
            return "full"

    return wait, it.get, wait_in_vain, [True, "full"]


def future():
    it = Future()

    def wait_in_vain():
        try:
            return Future().result(SHORT)
        except TimeoutError:
            return "late"

    return it.result, lambda: it.set_result(5), wait_in_vain, [5, "late"]


def of_socket():
    a, b = socket.socketpair()

    def wait_in_vain():
        a.settimeout(SHORT)
        try:
            return a.recv(9)
        except TimeoutError:
            return "late"

    return lambda: a.recv(9), lambda: b.send(b"x"), wait_in_vain, [b"x", "late"]


def accepting():
    server = socket.create_server(("127.0.0.1", 0))

    def wait_in_vain():
        server.settimeout(SHORT)
        try:
            return server.accept()
        except TimeoutError:
            return "late"

    def wait():
        return server.accept()[0].recv(1)

    def wake():
        socket.create_connection(server.getsockname(), timeout=LONG).send(b"x")

    return wait, wake, wait_in_vain, [b"x", "late"]


def selecting():
    a, b = socket.socketpair()
    return (
        lambda: select.select([a], [], [], LONG)[0] == [a] and a.recv(1),
        lambda: b.send(b"x"),
        lambda: select.select([a], [], [], SHORT),
        [b"x", ([], [], [])],
    )


def polling(kind, unit):
    a, b = socket.socketpair()
    it = kind()
    it.register(a, select.POLLIN)
    return (
        lambda: it.poll(LONG * unit) == [(a.fileno(), select.POLLIN)] and a.recv(1),
        lambda: b.send(b"x"),
        lambda: it.poll(SHORT * unit),
        [b"x", []],
    )


def selector(kind):
    a, b = socket.socketpair()
    it = kind()
    it.register(a, selectors.EVENT_READ)
    return (
        lambda: bool(it.select(LONG)) and a.recv(1),
        lambda: b.send(b"x"),
        lambda: it.select(SHORT),
        [b"x", []],
    )


def pipe():
    r, w = os.pipe()
    return (
        lambda: os.read(r, 9),
        lambda: os.write(w, b"x"),
        lambda: select.select([r], [], [], SHORT)[0],
        [b"x", []],
    )


def full_pipe():
    r, w = os.pipe()
    block = b"x" * (1 << 20)

    def wake():
        left = len(block)
        while left:
            left -= len(os.read(r, 65536))

    return lambda: os.write(w, block), wake, lambda: None, [len(block), None]


def joining():
    begin = threading.Event()
    box = []

    def start():
        box.append(threading.Thread(target=lambda: begin.wait(LONG)))
        box[0].start()
        return box[0]

    def wait():
        thread = box[0] if box else start()
        thread.join(LONG)
        return thread.is_alive()

    def wait_in_vain():
        thread = threading.Thread(target=threading.Event().wait, args=(SHORT * 4,))
        thread.start()
        thread.join(SHORT)
        return thread.is_alive()

    return wait, begin.set, wait_in_vain, [False, True]


def child():
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def wait_in_vain():
        other = subprocess.Popen(["sleep", "60"])
        try:
            return other.wait(SHORT)
        except subprocess.TimeoutExpired:
            other.kill()
            return other.wait()

    return process.wait, lambda: process.stdin.close(), wait_in_vain, [0, -9]


def output_of_child():
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def wake():
        process.stdin.write(b"x\n")
        process.stdin.close()

    return lambda: (process.stdout.readline(), process.wait()), wake, lambda: 1, [(b"x\n", 0), 1]


PRIMITIVES = {
    "Lock": lock,
    "RLock": rlock,
    "Condition": condition,
    "Event": event,
    "Semaphore": semaphore,
    "BoundedSemaphore": bounded_semaphore,
    "Barrier": barrier,
    "Queue": lambda: of_queue(queue.Queue),
    "LifoQueue": lambda: of_queue(queue.LifoQueue),
    "PriorityQueue": lambda: of_queue(queue.PriorityQueue),
    "SimpleQueue": lambda: of_queue(queue.SimpleQueue),
    "full_Queue": full_queue,
    "Future": future,
    "socket": of_socket,
    "accept": accepting,
    "select": selecting,
    "poll": lambda: polling(select.poll, 1000),
    "epoll": lambda: polling(select.epoll, 1),
    "PollSelector": lambda: selector(selectors.PollSelector),
    "DefaultSelector": lambda: selector(selectors.DefaultSelector),
    "pipe": pipe,
    "full_pipe": full_pipe,
    "Thread.join": joining,
    "Popen.wait": child,
    "Popen.stdout": output_of_child,
}


def direction(make, waits, wakes):
    """Let one side wait for the other, with the object made here and there."""
    for maker in ("greenlet", "thread"):
        wait, wake, in_vain, expected = Side(maker, make).join()
        waiting = Side(waits, wait)
        gevent.sleep(0.002)  # mostly it waits by now, and must come through if it does not
        Side(wakes, wake).join()
        assert waiting.join() == expected[0]
        assert Side(waits, in_vain).join() == expected[1]


def random_operations(count=10_000, seed=1):
    """Four greenlets and four threads take locks and pass things on, in random order."""
    locks = [threading.Lock() for _ in range(3)]
    inside = [0, 0, 0]
    things, items = queue.Queue(4), threading.Semaphore(2)
    condition = threading.Condition()

    def work(number):
        dice = random.Random(seed * 100 + number)
        for step in range(count // 8):
            which = dice.randrange(3)
            choice = dice.random()
            if choice < 0.5:
                taken = locks[which].acquire(timeout=dice.choice([-1, -1, 0.0005]))
                if taken:
                    inside[which] += 1
                    assert inside[which] == 1, "two have a lock"
                    if dice.random() < 0.1:
                        time.sleep(0.0001)
                    inside[which] -= 1
                    locks[which].release()
            elif choice < 0.8:
                things.put(step)
                things.get()
            elif choice < 0.9:
                with items:
                    time.sleep(0)
            else:
                with condition:
                    condition.notify_all()
                    condition.wait(0.0005)
        return True

    sides = [Side(kind, lambda n=n: work(n)) for n, kind in enumerate(["greenlet", "thread"] * 4)]
    assert all(side.join() for side in sides)
    assert not any(lock.locked() for lock in locks)
    assert things.empty()


def killed_while_it_waits():
    """A greenlet that is ended while it waits for a lock does not take the wake-up along."""
    it = threading.Lock()
    it.acquire()
    first = gevent.spawn(lambda: it.acquire() and it.release())
    gevent.sleep(0)
    second = Side("thread", it.acquire)
    while len(it._waiting) < 2:
        gevent.sleep(0.001)
    it.release()  # wakes the first
    first.kill()
    assert second.join()


def closed_from_a_thread():
    """A socket that a greenlet reads can be closed by a thread."""
    a, b = socket.socketpair()
    reading = gevent.spawn(lambda: a.recv(1))
    gevent.sleep(0.01)
    Side("thread", a.close).join()
    reading.join(LONG)
    assert isinstance(reading.exception, OSError), reading.exception
    assert b.recv(1) == b""


def main():
    results = {}
    cases = {
        f"{name}: {waits} waits for {wakes}": lambda m=make, a=waits, b=wakes: direction(m, a, b)
        for name, make in PRIMITIVES.items()
        for waits in ("greenlet", "thread")
        for wakes in ("greenlet", "thread")
    }
    cases |= {
        fn.__name__: fn for fn in (random_operations, killed_while_it_waits, closed_from_a_thread)
    }
    if sys.argv[1:]:
        cases = {name: case for name, case in cases.items() if sys.argv[1] in name}
    for name, case in cases.items():
        try:
            case()
            results[name] = None
        except BaseException:
            results[name] = traceback.format_exc()
    print(json.dumps(results), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
