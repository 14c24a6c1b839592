"""Calls the author's code: with its deadline running, in the loop or in a thread, marked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from .._filter.handlers import Handler
from .._process.mark import SID_BYTES, free_slots
from ..errors import HandlerTimeout
from ..protocol import Call
from .answers import Answers
from .moved import Moved
from .runners import Runner, Runners
from .storage import Storage
from .threads import Threads

if TYPE_CHECKING:
    from .._filter.app import Filter


class Calls:
    """Calls the handlers of one filter.

    Args:
        app: the filter.
        answers: makes answers of what handlers return and raise.
        runners: the greenlets that handlers run in.
        page: where to leave which report's handler runs (``_process/mark.py``), or None.
        clock: gives the time (monotonic seconds).

    Attributes:
        now: time of the last input or tick.
        threads: the pool for handlers with ``thread=True``.
        moved: the handlers that kept the loop.
        storage: the author's own objects of sessions and messages.
    """

    def __init__(
        self,
        app: Filter,
        answers: Answers,
        runners: Runners,
        page: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self.answers = answers
        self.runners = runners
        self.page = page
        self.clock = clock
        self.now = clock()
        slots = free_slots(page)
        self.threads = Threads(app.threads, page, slots)
        self.moved = Moved(Threads(1, page, slots), answers.errors_of)
        self.storage = Storage(app, clock)

    def call(
        self, runner: Runner, handler: Handler, event: Call, fn: Callable[..., Any], *args: Any
    ) -> Any:
        """Call the author's code with its deadline running, here or in the thread pool.

        Args:
            runner: the greenlet that this runs in.
            handler: whose deadline and options hold.
            event: that it is called for.
            fn: what to call.
            args: its arguments.

        Raises:
            BaseException: whatever it raises.
        """
        if self.storage.used:
            self.storage.begin(runner, event)
        outer, runner.call = runner.running, event
        runner.begin(handler, self.clock())
        if handler.report and self.page is not None:
            self.page[SID_BYTES] = handler.report
        try:
            if handler.thread:
                return self.threads.call(event.session.sid, handler.report, fn, *args)
            if handler in self.moved.handlers:
                return self.moved.call(event.session.sid, handler, fn, *args)
            return fn(*args)
        finally:
            if handler.report and self.page is not None:
                self.page[SID_BYTES] = 0
            runner.begin(outer, self.clock())
            if runner.abandoned:
                raise GreenletExit  # its session has gone on without it

    def is_threaded(self, handler: Handler) -> bool:
        """Tell whether a handler's next call will be made in another thread."""
        return handler.thread or handler in self.moved.handlers

    @contextmanager
    def pause_deadline(self, runner: Runner) -> Iterator[None]:
        """Stop the deadline while the author's code waits for smtpd or for the client."""
        running, runner.running = runner.running, None
        used = self.clock() - runner.since
        try:
            yield
        finally:
            runner.begin(running, self.clock() - used)

    def make_room(self, runner: Runner) -> None:
        """Wait for room in the middle of the author's code, which does not end by itself perhaps.

        Raises:
            HandlerTimeout: it has written for longer than its deadline.
            GreenletExit: its session has gone on without it.
        """
        with self.pause_deadline(runner):
            self.answers.wait_room()
        if runner.abandoned:
            raise GreenletExit
        if self.clock() - runner.since > runner.running.deadline:
            raise HandlerTimeout(f"{runner.running!r} passed its {runner.running.deadline:g} s")
