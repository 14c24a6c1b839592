"""Asks one member about one request: its handler, its deadline, its policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gevent.event import Event
from greenlet import GreenletExit

from .._filter.context import DEFERRED
from .._filter.handlers import Handler
from ..errors import DecisionError
from ..protocol import PROCEED, Decision, last_resort

if TYPE_CHECKING:
    from .._runtime.engine import Engine


class Asking:
    """Asks the members of one chain, and takes what they say later."""

    def __init__(self) -> None:
        self._open: dict[Any, float] = {}  # requests that members have not answered
        self._replies: dict[Any, Decision] = {}  # what ctx.reply() has said
        self._waiters: dict[Any, Event] = {}

    def ask(self, handler: Handler, view: Any, values: tuple[Any, ...]) -> Decision:
        """Ask a member, and give a decision that is legal here. May switch greenlets.

        Args:
            handler: of the member.
            view: the request as the member sees it.
            values: the handler's arguments after it.

        Returns:
            What the member decides; its policy where it fails, is late, or decides what the phase
            or the server does not allow.
        """
        real = view.session._actual
        engine: Engine = real.runtime
        worker = real.worker
        view.owed = self._open
        self._open[view] = 0.0
        try:
            if handler.thread or handler in engine.moved.handlers:
                decision = engine.run(worker, handler, view, handler.fn, view, *values)
            else:  # what run() does, at half its cost
                outer = worker.running
                worker.running, worker.since, worker.warned = handler, engine.now, 0
                try:
                    decision = handler.fn(view, *values)
                finally:
                    worker.running, worker.since, worker.warned = outer, engine.now, 0
                if worker.abandoned:
                    raise GreenletExit  # its session has gone on without it
            if decision is DEFERRED:
                decision = self._wait(engine, worker, handler, view)
            elif self._open.pop(view, None) is None:
                if decision is not None and decision is not PROCEED:
                    engine.answers.tell_late(view, handler)
                decision = self._replies.pop(view)
            if decision is None or decision is PROCEED:
                return PROCEED
            if type(decision) is not Decision:
                raise DecisionError(f"returned {type(decision).__name__}, which is not a decision")
            engine.guard.check(view, decision)
            return PROCEED if decision.kind == PROCEED.kind else decision  # the others compare it
        except BaseException as error:
            if worker.abandoned:
                raise
            self._open.pop(view, None)
            self._replies.pop(view, None)
            return self._policy(engine, handler, view, error)

    def _wait(self, engine: Engine, worker: Any, handler: Handler, view: Any) -> Decision:
        """Wait for ``ctx.reply()``, within the member's deadline. Switches greenlets."""
        waiter = self._waiters[view] = Event()
        outer, since = worker.running, engine.now
        worker.begin(handler, since)
        try:
            if view not in self._replies:
                engine.park(waiter.wait)
        finally:
            worker.begin(outer, engine.clock())
            del self._waiters[view]
        return self._replies.pop(view)

    def reply(self, call: Any, decision: Decision | None) -> bool:
        """Take what a member says by ``ctx.reply``, from any greenlet or thread."""
        decision = PROCEED if decision is None else decision
        engine: Engine = call.session._actual.runtime
        if call.owed is None or call.owed.pop(call, None) is None:
            if decision is not PROCEED:
                engine.answers.tell_late(call, None)
            return False
        self._replies[call] = decision
        engine.run_soon(self._wake, call)
        return True

    def _wake(self, call: Any) -> None:
        waiter = self._waiters.get(call)
        if waiter is not None:
            waiter.set()

    def _policy(
        self, engine: Engine, handler: Handler, view: Any, error: BaseException
    ) -> Decision:
        decision = handler.on_error
        try:
            engine.guard.check(view, decision)
        except DecisionError:
            decision = last_resort(view)
        engine.answers.log_failure(view, handler, error, f"taken for {decision!r}")
        return decision
