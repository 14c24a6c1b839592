"""Handlers that wait, or fork, as the sender's address says. What happens goes to a file."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor

from greenfilter import Filter, reject

EFFECTS = sys.argv[1]
app = Filter("waits", deadline=20)
pool = multiprocessing.get_context("fork").Pool(2) if "--pool" in sys.argv else None


def note(what):
    with open(EFFECTS, "a") as file:
        file.write(f"{what} {os.getpid()}\n")


def slow():
    time.sleep(0.6)
    note("slow")


def fork():
    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode


def spawn():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0.1,))
    child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode


def in_child():
    """Wait in each way that a loop would use to let others go on."""
    time.sleep(0.7)
    threading.Event().wait(0.1)
    thread = threading.Thread(target=time.sleep, args=(0.05,))
    thread.start()
    thread.join()
    subprocess.run(["true"], check=True)
    note("child")


def raw_fork():
    pid = os.fork()
    if pid == 0:
        in_child()
        return None  # as an author who forgets os._exit()
    assert os.waitpid(pid, 0) == (pid, 0)
    return None


def in_pty():
    assert pty.spawn(["sleep", "0.2"], lambda fd: os.read(fd, 1024), lambda fd: b"") == 0


def in_pool():
    assert pool.apply(abs, (-3,)) == 3


def in_executor():
    with ProcessPoolExecutor(1) as executor:
        assert executor.submit(abs, -3).result() == 3


def in_queue():
    queue = multiprocessing.get_context("fork").Queue()
    child = multiprocessing.get_context("fork").Process(target=queue.put, args=("x",))
    child.start()
    assert queue.get() == "x"
    child.join()


async def waiting():
    await asyncio.sleep(0.2)
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0


def in_asyncio():
    asyncio.run(waiting())


def alarm():
    signal.alarm(1)


def system():
    assert os.system("sleep 0.2; exit 3") == 3 << 8
    assert os.system("kill -9 $$") == 9
    assert os.popen("echo x").read() == "x\n"


def child_of_its_own():
    pid = os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", "sleep 0.2; exit 4")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    assert os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "exit 5") == 5


def act(name):
    globals()[name.partition("@")[0].replace("-", "_")]()
    return reject(550, "done")


@app.filter.mail_from
def plain(ctx, sender):
    return act(sender)


@app.filter.helo(thread=True)
def in_thread(ctx, identity):
    return act(identity)


@app.filter.ehlo
def greet(ctx, identity):
    note("greeted")
