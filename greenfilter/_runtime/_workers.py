"""Greenlets that are kept and used again, and the queue of what they have to do.

Starting a greenlet costs 15 to 25 us, switching into a parked one 0.9. So workers that have
nothing to do wait in ``hub.switch()``. A callback of the hub hands out the tasks: a worker goes
on from task to task as long as nothing blocks; when something does, control comes back to the
callback, which takes the next worker.

What one session's code leaves in context variables or in a threading.local is not there for the
next session's: a worker whose greenlet has such things of its own is not used again (0.05 us to
look for them).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol
from weakref import getweakrefcount

import gevent
from greenlet import greenlet

from .._log import logger

_MAX_IDLE = 256
# Seconds of ready work after which the loop gets its turn: what is answered leaves, timers run.
_TURN = 0.02


class Task(Protocol):
    """Something that a worker does."""

    worker: Worker | None
    """Who is inside it. A task that is ready and has one waits there for more input."""

    def work(self, worker: Worker) -> None:
        """Do it. May switch greenlets."""


class Turn:
    """When the loop gets its turn: a time (monotonic seconds) that all workers share."""

    __slots__ = ("end",)

    def __init__(self) -> None:
        self.end = 0.0


class Worker:
    """One kept greenlet.

    Args:
        run: what it does, given this worker.
        hub: its parent.
        turn: when it has to let the loop go on.

    Attributes:
        greenlet: the greenlet itself.
        running: what it is doing in the author's code, or None; the clock of deadlines looks here.
        since: time at which that began.
        warned: how often it has been told that it is late.
        abandoned: it did not listen; its session has gone on with another worker.
        call: the event of the handler that was called last, but for those of plain requests.
        task: what it works on.
    """

    __slots__ = (
        "_hub",
        "abandoned",
        "call",
        "greenlet",
        "running",
        "since",
        "task",
        "turn",
        "warned",
    )

    def __init__(self, run: Callable[[Worker], None], hub: Any, turn: Turn) -> None:
        self.greenlet = greenlet(lambda: run(self), hub)
        self.turn = turn
        self._hub = hub
        self.running: Any = None
        self.since = 0.0
        self.warned = 0
        self.abandoned = False
        self.call: Any = None
        self.task: Task | None = None

    def throw(self, error: BaseException) -> None:
        """Raise an error in what it does. In the hub; returns when it switches back."""
        self.greenlet.throw(error)

    def give_turn(self) -> None:
        """Let the loop go round if its turn has come. May switch greenlets."""
        if time.monotonic() > self.turn.end:
            timer = self._hub.loop.timer(0)
            timer.start(self.greenlet.switch)
            try:
                self._hub.switch()
            finally:
                timer.close()
            self.turn.end = time.monotonic() + _TURN

    def begin(self, running: Any, now: float) -> None:
        """Note what begins to run in the author's code, with all of its deadline before it."""
        self.running, self.since, self.warned = running, now, 0


class Workers:
    """The pool.

    Args:
        limit: tasks in hand at once, but for those that are parked.
        on_full: called when the limit is reached, in the hub or in a worker.
        on_room: called when it no longer is.
        vital: wraps what the loop calls.
    """

    def __init__(
        self,
        limit: int,
        on_full: Callable[[], None],
        on_room: Callable[[], None],
        vital: Callable[[Callable[..., Any]], Callable[..., None]] = lambda fn: fn,
    ) -> None:
        self._dispatch = vital(self.dispatch)
        self.ready: deque[Task] = deque()
        self.busy: dict[Worker, None] = {}
        self._hub = gevent.get_hub()
        self._idle: list[Worker] = []
        self._limit = limit
        self._on_full = on_full
        self._on_room = on_room
        self._full = False
        self._scheduled = False
        self._turn = Turn()
        self._next_turn = self._hub.loop.timer(0)
        self._parked = 0

    def park(self, switch: Callable[[], Any]) -> None:
        """Wait in a task for a client's next lines, or for another task. Switches greenlets.

        It does not count as in hand meanwhile: what it waits for is still to be read, or begun.
        """
        self._parked += 1
        self._make_room()
        try:
            switch()
        finally:
            self._parked -= 1

    def in_hand(self) -> int:
        """Count the workers that are at work, but for those that are parked."""
        return len(self.busy) - self._parked

    def abandon(self, worker: Worker) -> None:
        """Go on without a worker that does not end. In the hub."""
        worker.abandoned = True
        worker.running = None
        self.busy.pop(worker, None)
        self._make_room()

    def schedule(self) -> None:
        """Have :meth:`dispatch` run soon: when the loop has gone round, if its turn has come."""
        if self._scheduled:
            return
        self._scheduled = True
        if time.monotonic() > self._turn.end:
            # A callback would run before the loop goes round: it runs up to 50 of them first.
            self._next_turn.start(self._dispatch)
        else:
            self._hub.loop.run_callback(self._dispatch)

    def dispatch(self) -> None:
        """Hand out what is ready, as much as fits into a turn. To be called in the hub."""
        self._scheduled = False
        ready, turn = self.ready, self._turn
        turn.end = time.monotonic() + _TURN
        while ready:
            if time.monotonic() > turn.end:
                self.schedule()
                return
            worker = ready[0].worker
            if worker is not None:
                ready.popleft()
            elif self.in_hand() >= self._limit:
                self._full = True
                self._on_full()
                return
            elif self._idle:
                worker = self._idle.pop()
            else:
                worker = Worker(self._run, self._hub, turn)
            worker.greenlet.switch()

    def _run(self, worker: Worker) -> None:
        ready, busy, inside, turn = self.ready, self.busy, worker.greenlet, self._turn
        while True:
            busy[worker] = None
            while ready and ready[0].worker is None and not getweakrefcount(inside):
                worker.task = task = ready.popleft()
                try:
                    task.work(worker)
                except BaseException:
                    if not worker.abandoned:
                        logger.exception("a worker survived an error outside of any handler")
                if worker.abandoned:
                    return
                worker.task = None
                inside.gr_context = None  # context variables that the author's code has set
                if time.monotonic() > turn.end:
                    break
            del busy[worker]
            self._make_room()
            # gevent's threading.local keeps a weak reference to each greenlet that it has
            # something for, and lets go of that only with the greenlet.
            if len(self._idle) >= _MAX_IDLE or getweakrefcount(inside):
                return
            self._idle.append(worker)
            self._hub.switch()

    def _make_room(self) -> None:
        if self.ready or self._full:
            self.schedule()
        if self._full:
            self._full = False
            self._on_room()
