"""Calls the author's code: with its deadline running, in the loop or in a thread, marked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gevent.monkey import get_original
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

_get_ident: Callable[[], int] = get_original("_thread", "get_ident")


class Calls:
    """Calls the handlers of one filter.

    Args:
        app: the filter.
        answers: makes answers of what handlers return and raise.
        runners: the greenlets that handlers run in.
        page: where to leave which report's handler runs (``_process/mark.py``), or None.
        clock: gives the time (monotonic seconds).

    Attributes:
        registry: the filter's handlers.
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
        self.registry = app._registry
        self.answers = answers
        self.runners = runners
        self.page = page
        self.clock = clock
        self.now = clock()
        self._own_thread = _get_ident()
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
        runner.call = event
        if handler.report and self.page is not None:
            self.page[SID_BYTES] = handler.report
        try:
            return self.run(runner, handler, event, fn, *args)
        finally:
            if handler.report and self.page is not None:
                self.page[SID_BYTES] = 0

    def run(
        self, runner: Runner, handler: Handler, event: Call, fn: Callable[..., Any], *args: Any
    ) -> Any:
        """Call the author's code with its deadline running, within a call of other code or not.

        Arguments and errors as for :meth:`call`.
        """
        outer = runner.running
        runner.begin(handler, self.clock())
        try:
            if handler.thread:
                return self.threads.call(event.session.sid, handler.report, fn, *args)
            if handler in self.moved.handlers:
                return self.moved.call(event.session.sid, handler, fn, *args)
            return fn(*args)
        finally:
            runner.begin(outer, self.clock())
            if runner.abandoned:
                raise GreenletExit  # its session has gone on without it

    def is_threaded(self, handler: Handler) -> bool:
        """Return whether a handler's next call will be made in another thread."""
        return handler.thread or handler in self.moved.handlers

    def compute(self, event: Call, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a function in the pool of threads, unless the caller is in a thread itself.

        Switches greenlets.

        Args:
            event: that it is called for.
            fn: the function.
            args: its arguments.

        Raises:
            BaseException: whatever it raises.
        """
        if _get_ident() != self._own_thread:
            return fn(*args)
        return self.threads.call(event.session.sid, 0, fn, *args)

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
