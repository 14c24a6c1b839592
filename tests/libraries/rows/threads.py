"""Threads, locks, queues, and waiting for sockets and time."""

from ..row import Row

_PAIR = "ours, theirs = socket.socketpair()\n"
_CLOSE = "\nours.close()\ntheirs.close()"

ROWS = (
    Row(
        "threading_thread",
        "import threading\nimport time",
        """
        thread = threading.Thread(target=time.sleep, args=(0.3,))
        thread.start()
        thread.join()
        """,
    ),
    Row(
        "threading_lock",
        "import threading\nimport time\nLOCK = threading.Lock()",
        "with LOCK: time.sleep(0.01)\ntime.sleep(0.3)",
        note="waits for its own lock",
    ),
    Row(
        "threading_event",
        "import threading\nEVENT = threading.Event()",
        "assert not EVENT.wait(0.3)",
    ),
    Row(
        "threading_condition",
        "import threading\nCONDITION = threading.Condition()",
        "with CONDITION: assert not CONDITION.wait(0.3)",
    ),
    Row(
        "threading_timer",
        "import threading",
        """
        event = threading.Event()
        threading.Timer(0.3, event.set).start()
        assert event.wait(20)
        """,
    ),
    Row(
        "queue",
        "import queue\nQUEUE = queue.Queue()",
        """
        try:
            QUEUE.get(timeout=0.3)
        except queue.Empty:
            pass
        else:
            raise AssertionError("not empty")
        """,
    ),
    Row(
        "simple_queue",
        "import queue\nQUEUE = queue.SimpleQueue()",
        """
        try:
            QUEUE.get(timeout=0.3)
        except queue.Empty:
            pass
        else:
            raise AssertionError("not empty")
        """,
    ),
    Row(
        "threading_barrier",
        "import threading",
        """
        barrier = threading.Barrier(2)
        threading.Timer(0.3, barrier.wait).start()
        barrier.wait(20)
        """,
    ),
    Row("time_sleep", "import time", "time.sleep(0.3)"),
    Row(
        "select_select",
        "import select\nimport socket",
        _PAIR + "assert select.select([ours], [], [], 0.3)[0] == []" + _CLOSE,
    ),
    Row(
        "select_poll",
        "import select\nimport socket",
        _PAIR
        + "poll = select.poll()\npoll.register(ours, select.POLLIN)\nassert poll.poll(300) == []"
        + _CLOSE,
    ),
    Row(
        "select_epoll",
        "import select\nimport socket",
        _PAIR + "poll = select.epoll()\npoll.register(ours, 1)\nassert poll.poll(0.3) == []",
    ),
    Row(
        "selectors",
        "import selectors\nimport socket",
        _PAIR
        + "with selectors.DefaultSelector() as selector:\n"
        + "    selector.register(ours, selectors.EVENT_READ)\n"
        + "    assert selector.select(0.3) == []"
        + _CLOSE,
    ),
)
