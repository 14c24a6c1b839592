"""Ask one member about one request: its handler, its deadline, its policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gevent.event import Event
from greenlet import GreenletExit

from .._filter.context import DEFERRED, Context
from .._filter.handlers import Handler
from ..errors import DecisionError
from ..protocol import PROCEED, Decision, last_resort

if TYPE_CHECKING:
    from .._runtime.calls import Calls
    from .._runtime.runners import Runner


class Asking:
    """Asks the members of one chain, and takes what they say later."""

    def __init__(self) -> None:
        self._open: dict[Any, float] = {}  # requests that members have not answered
        self._replies: dict[Any, Decision] = {}  # what ctx.reply() has said
        self._waiters: dict[Any, Event] = {}

    def ask(self, handler: Handler, view: Any, values: tuple[Any, ...]) -> Decision:
        """Ask a member; return a decision that is legal here. May switch greenlets.

        Args:
            handler: of the member.
            view: the request as the member sees it.
            values: the handler's arguments after ctx.

        Returns:
            What the member decides; its policy where it fails, is late, or decides what the phase
            or the server does not allow.
        """
        real = view.session._actual
        calls: Calls = real.runtime.calls
        runner: Runner = real.runner
        ctx = Context(view)
        view.owed = self._open
        self._open[view] = 0.0
        try:
            if calls.is_threaded(handler):
                decision = calls.run(runner, handler, view, handler.fn, ctx, *values)
            else:  # what run() does, at half its cost
                outer = runner.running
                runner.running, runner.since, runner.warned = handler, calls.now, 0
                try:
                    decision = handler.fn(ctx, *values)
                finally:
                    runner.running, runner.since, runner.warned = outer, calls.now, 0
                if runner.abandoned:
                    raise GreenletExit  # its session has gone on without it
            if decision is DEFERRED:
                decision = self._wait(calls, runner, handler, view)
            elif self._open.pop(view, None) is None:
                if decision is not None and decision is not PROCEED:
                    calls.answers.tell_late(view, handler)
                decision = self._replies.pop(view)
            if decision is None or decision is PROCEED:
                return PROCEED
            if type(decision) is not Decision:
                raise DecisionError(f"returned {type(decision).__name__}, which is not a decision")
            calls.answers.guard.check(view, decision)
            return PROCEED if decision.kind == PROCEED.kind else decision  # the others compare it
        except BaseException as error:
            if runner.abandoned:
                raise
            self._open.pop(view, None)
            self._replies.pop(view, None)
            return self._policy(calls, handler, view, error)

    def _wait(self, calls: Calls, runner: Runner, handler: Handler, view: Any) -> Decision:
        """Wait for ``ctx.reply()``, within the member's deadline. Switches greenlets."""
        waiter = self._waiters[view] = Event()
        outer = runner.running
        runner.begin(handler, calls.now)
        try:
            if view not in self._replies:
                calls.runners.park(waiter.wait)
        finally:
            runner.begin(outer, calls.clock())
            del self._waiters[view]
        return self._replies.pop(view)

    def reply(self, call: Any, decision: Decision | None) -> bool:
        """Take what a member says by ``ctx.reply``, from any greenlet or thread."""
        decision = PROCEED if decision is None else decision
        calls: Calls = call.session._actual.runtime.calls
        if not calls.answers.guard.forget(call):
            if decision is not PROCEED:
                calls.answers.tell_late(call, None)
            return False
        self._replies[call] = decision
        calls.answers.run_soon(self._wake, call)
        return True

    def _wake(self, call: Any) -> None:
        waiter = self._waiters.get(call)
        if waiter is not None:
            waiter.set()

    def _policy(self, calls: Calls, handler: Handler, view: Any, error: BaseException) -> Decision:
        decision = handler.on_error
        try:
            calls.answers.guard.check(view, decision)
        except DecisionError:
            decision = last_resort(view)
        calls.answers.log_failure(view, handler, error, f"taken for {decision!r}")
        return decision
