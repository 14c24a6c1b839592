"""Greenlets that are kept and used again, and the queue of what they have to do.

Starting a greenlet costs 15 to 25 us, switching into a parked one 0.9. So runners that have
nothing to do wait in ``hub.switch()``. A callback of the hub hands out the tasks: a runner goes
on from task to task as long as nothing blocks; when something does, control comes back to the
callback, which takes the next runner.

What one session's code leaves in context variables or in a threading.local is not there for the
next session's: a runner whose greenlet has such things of its own is not used again (0.05 us to
look for them).

Under a supervisor, who runs is left in a page that it reads when the process has died (see
``_process/mark.py``): while any runner is blocked, by a trace function that costs 0.3 us a switch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol
from weakref import getweakrefcount

import gevent
from greenlet import getcurrent, gettrace, settrace

from .._process.log import logger
from .._process.mark import NOBODY, SID_BYTES, SLOT_BYTES
from .turn import Turn
from .turn_greenlet import TurnGreenlet

_MAX_IDLE = 256
_NO_SID = NOBODY[:SID_BYTES]
_BYTES = [bytes([number]) for number in range(256)]


class Task(Protocol):
    """Something that a runner does."""

    sid: bytes
    """Of the session that it is done for."""

    runner: Runner | None
    """Who is inside it. A task that is ready and has one waits there for more input."""

    def work(self, runner: Runner) -> None:
        """Run it. May switch greenlets."""


class Runner:
    """One kept greenlet.

    Args:
        run: what it does, given this runner.
        hub: its parent.
        turn: when it has to let the loop go on.

    Attributes:
        greenlet: the greenlet itself.
        running: what it is doing in the author's code, or None; the clock of deadlines looks here.
        since: time at which that began.
        warned: how often HandlerTimeout was raised in it.
        abandoned: it did not listen; its session has gone on with another runner.
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

    def __init__(self, run: Callable[[Runner], None], hub: Any, turn: Turn) -> None:
        self.greenlet = TurnGreenlet(lambda: run(self), hub, turn)
        self.greenlet.runner = self
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
        """Let the loop go round if its turn has come. May switch greenlets.

        Called in another greenlet or thread than the runner's, it does nothing.
        """
        self.turn.missed = False
        if time.monotonic() > self.turn.end and getcurrent() is self.greenlet:
            timer = self._hub.loop.timer(0)
            timer.start(self.greenlet.go_on)
            try:
                self._hub.switch()
            finally:
                timer.close()
            self.turn.begin()

    def begin(self, running: Any, now: float) -> None:
        """Note what begins to run in the author's code, with all of its deadline before it."""
        self.running, self.since, self.warned = running, now, 0


class Runners:
    """The pool.

    Args:
        limit: tasks in hand at once, but for those that are parked.
        on_full: called when the limit is reached, in the hub or in a runner.
        on_room: called when it no longer is.
        vital: wraps what the loop calls.
        page: where to leave whose code runs (``_process/mark.py``), or None.

    Attributes:
        turn: when the loop gets its turn.
    """

    def __init__(
        self,
        limit: int,
        on_full: Callable[[], None],
        on_room: Callable[[], None],
        vital: Callable[[Callable[..., Any]], Callable[..., None]] = lambda fn: fn,
        page: Any = None,
    ) -> None:
        self._dispatch = vital(self.dispatch)
        self.ready: deque[Task] = deque()
        self.busy: dict[Runner, None] = {}
        self._hub = gevent.get_hub()
        self._idle: list[Runner] = []
        self._limit = limit
        self._on_full = on_full
        self._on_room = on_room
        self._full = False
        self._scheduled = False
        self.turn = Turn(self._hub)
        self._next_turn = self._hub.loop.timer(0)
        self._parked = 0
        self._page = page
        self._inside: dict[Any, Runner] = {}  # greenlets that may be traced
        self._traces = False

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

    def start(self, task: Task) -> None:
        """Run a task soon. In the loop's thread; never switches greenlets."""
        self.ready.append(task)
        self.schedule()

    def wait(self, task: Task) -> None:
        """Wait, in the runner of a task, until :meth:`resume`. Switches greenlets.

        It does not count as in hand meanwhile, as in :meth:`park`.
        """
        try:
            self.park(self._hub.switch)
        except BaseException:
            if task in self.ready:  # resumed already: it must not be so twice
                self.ready.remove(task)
            raise

    def in_hand(self) -> int:
        """Count the runners that are at work, but for those that are parked."""
        return len(self.busy) - self._parked

    def current(self) -> Runner:
        """Return the runner that the caller runs in."""
        runner: Runner = getcurrent().runner  # type: ignore[attr-defined]
        return runner

    def inside(self) -> Runner | None:
        """Find the runner that runs the author's code right now. From any other thread."""
        for runner in list(self.busy):
            if runner.running is not None:
                try:
                    runner.greenlet.gr_context  # noqa: B018
                except ValueError:  # which it says of one that runs in another thread
                    return runner
        return None

    def abandon(self, runner: Runner) -> None:
        """Go on without a runner that does not end. In the hub."""
        runner.abandoned = True
        runner.running = None
        self.busy.pop(runner, None)
        self._make_room()

    def schedule(self) -> None:
        """Run :meth:`dispatch` soon: when the loop has gone round, if its turn has come."""
        if self._scheduled:
            return
        self._scheduled = True
        if time.monotonic() > self.turn.end:
            # A callback would run before the loop goes round: it runs up to 50 of them first.
            self._next_turn.start(self._dispatch)
        else:
            self._hub.loop.run_callback(self._dispatch)

    def dispatch(self) -> None:
        """Hand out what is ready, as much as fits into a turn. Call it in the hub."""
        self._scheduled = True  # what becomes ready meanwhile is dealt with right here
        ready, turn = self.ready, self.turn
        turn.begin()
        again = False
        while ready:
            if time.monotonic() > turn.end:
                again = True
                break
            runner = ready[0].runner
            if runner is not None:
                ready.popleft()
            elif self.in_hand() >= self._limit:
                self._full = True
                self._on_full()
                break
            elif self._idle:
                runner = self._idle.pop()
            else:
                runner = Runner(self._run, self._hub, turn)
            runner.greenlet.go_on()
            if self._page is not None and not self._traces and runner in self.busy:
                self._trace()
        self._scheduled = False
        if again:
            self.schedule()
        if self._page is not None:
            self._page[:SID_BYTES] = _NO_SID

    def leave_to_parent(self) -> None:
        """Keep a forked child from doing or marking anything that sessions wait for."""
        if self._traces:
            settrace(None)
        self._traces = False
        self._page = None
        for runner in self.busy:
            runner.abandoned = True

    def _trace(self) -> None:
        """Note who runs at each switch, now that a runner is blocked."""
        self._page[:SLOT_BYTES] = NOBODY
        if gettrace() is None:  # else it is the author's own, and what is marked less exact
            self._traces = True
            self._inside = {runner.greenlet: runner for runner in self.busy}
            settrace(self._on_switch)

    def _trace_no_more(self) -> None:
        self._traces = False
        self._inside = {}
        settrace(None)
        self._page[:SLOT_BYTES] = NOBODY

    def _on_switch(self, event: str, switch: Any) -> None:
        """Note that control has gone into a greenlet."""
        runner = self._inside.get(switch[1])
        task = runner.task if runner is not None else None
        if runner is None or task is None:
            self._page[:SLOT_BYTES] = NOBODY
        else:
            running = runner.running
            number = running.report if running is not None else 0
            self._page[: SID_BYTES + 1] = task.sid + _BYTES[number]

    def _run(self, runner: Runner) -> None:
        ready, busy, inside, page = self.ready, self.busy, runner.greenlet, self._page
        turn = self.turn
        while True:
            busy[runner] = None
            if self._traces:
                self._inside[inside] = runner
            while ready and ready[0].runner is None and not getweakrefcount(inside):
                runner.task = task = ready.popleft()
                if page is not None:
                    page[:SID_BYTES] = task.sid
                try:
                    task.work(runner)
                except BaseException:
                    if not runner.abandoned:
                        logger.exception("a runner survived an error outside of any handler")
                if runner.abandoned:
                    self._inside.pop(inside, None)
                    return
                runner.task = None
                inside.gr_context = None  # context variables that the author's code has set
                if time.monotonic() > turn.end:
                    break
            del busy[runner]
            if self._traces:
                self._inside.pop(inside, None)
                if not busy:
                    self._trace_no_more()
            self._make_room()
            # gevent's threading.local keeps a weak reference to each greenlet that it has
            # something for, and lets go of that only with the greenlet.
            if len(self._idle) >= _MAX_IDLE or getweakrefcount(inside):
                return
            self._idle.append(runner)
            self._hub.switch()

    def _make_room(self) -> None:
        if self.ready or self._full:
            self.schedule()
        if self._full:
            self._full = False
            self._on_room()
