"""Run the members of a chain for each request and report, each with its own view of the session.

All of it runs where the chain's own handler runs: in the greenlet of the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._filter.context import Context
from .._filter.handlers import Handler
from .._process.log import find_origin, logger, session_logger
from ..protocol import BYPASS, JUNK, PHASES, PROCEED, Call, Decision
from ..protocol._credentials import carries_credentials
from .asking import Asking
from .member import Member
from .observer import Observer
from .stages import Pipeline
from .state import ChainSession

if TYPE_CHECKING:
    from .._filter.app import Filter
    from .._runtime.calls import Calls

# junk marks the session at all other phases, but for these, where it says nothing.
_MESSAGE_PHASES = ("rcpt_to", "data")
_MARKS_NOTHING = ("rset", "quit")
_REFUSALS = ("reject", "disconnect")


class Host:
    """Runs the members of one chain.

    Args:
        app: the chain.
        members: its members, in order.
    """

    def __init__(self, app: Filter, members: list[Member]) -> None:
        self.app = app
        self.members = members
        self._asked: dict[str, list[tuple[Member, Handler | None]]] = {}
        self._told: dict[tuple[str, str], list[tuple[Member, Handler]]] = {}
        self._observers: dict[Member, Observer] = {}
        self._asking = Asking()

    # Its start

    def start(self, calls: Calls) -> None:
        """Start what the members need. Switches greenlets.

        Raises:
            UsageError: a program does not start.
        """
        for member in self.members:
            member.app.config = self.app.config
            if member.observe:
                self._observers[member] = Observer(member, calls.clock)
                continue
            member.app._registry.configure(calls)
            for fn in member.app._registry.config_functions:
                try:
                    fn(self.app.config)
                except BaseException as error:
                    self._log_config(member, fn, error)

    def end(self) -> None:
        """End what the members have begun. Switches greenlets."""
        for observer in self._observers.values():
            observer.end()
        for member in self.members:
            if not member.observe:
                member.app._registry.on_end()

    def _log_config(self, member: Member, fn: Any, error: BaseException) -> None:
        what = type(error).__name__
        logger.error("on_config %s of %r failed: %s: %s", fn, member, what, error)

    def take_members(self) -> None:
        """Take the members' handlers as they are now."""
        acting = [member for member in self.members if not member.observe]
        self._asked = {
            name: [
                (member, member.filters.get(name))
                for member in self.members
                if name in member.filters or (name == "commit" and member.has_data)
            ]
            for name in PHASES
        }
        keys = {key for member in acting for key in member.reports}
        self._told = {
            key: [(member, member.reports[key]) for member in acting if key in member.reports]
            for key in keys
        }

    def close(self, real: Any) -> None:
        """Take note that a client has left. Never switches greenlets."""
        if real.extra is not None:
            for view in real.extra.views:
                view.closed = True

    def state(self, real: Any) -> ChainSession:
        """Return what the chain knows of a session."""
        if real.extra is None:
            real.extra = state = ChainSession(self.members, real, self._asking)
            real._read()
            if real.memos:
                state.restore(real)
        found: ChainSession = real.extra
        return found

    # Requests

    def request(self, name: str) -> Callable[..., Any]:
        """Make the chain's handler of a phase."""
        takes_message = name in ("data", "commit")

        def chain(ctx: Context, *values: Any) -> Decision | None:
            decision = self._request(name, takes_message, ctx._call, values)
            return None if decision is PROCEED else decision  # which the runtime is faster with

        return chain

    def _request(
        self, name: str, takes_message: bool, call: Any, values: tuple[Any, ...]
    ) -> Decision:
        real = call.session
        state = self.state(real)
        calls: Calls = real.runtime.calls
        line, body, said = call.line, call.body, values
        pipeline = state.pipeline if name == "commit" else None
        rewrites: dict[str, str] = {}
        rewritten: Decision | None = None
        reported: Decision | None = None
        is_junk = False
        decision = PROCEED
        for member, handler in self._asked[name]:
            if member.number >= state.bypassed:
                break
            view = Call(state.views[member.number], call.hook, line, body)
            if pipeline is not None:
                if not pipeline.includes(member):
                    continue
                decision = pipeline.verdict(member)
            elif member.is_conditional and not member.is_asked(
                Context(view), message=takes_message
            ):
                continue
            if member.observe:
                self._observers[member].ask(view)
                continue
            if decision is PROCEED and handler is not None:
                decision = self._asking.ask(handler, view, values)
            if decision is PROCEED:
                if call not in call.owed:
                    return PROCEED  # answered at the chain's deadline
                continue
            kind = decision.kind
            if kind in _REFUSALS:
                self._log_decision(call, member, decision)
                rewrites = {}
                break
            if kind == "junk":
                is_junk = True
            elif kind == "rewrite":
                rewritten = decision
                value = _value(name, decision.value)
                rewrites[member.key] = value
                values = (value,)
                line = line[:body] + value.encode("utf-8", "surrogateescape")
            elif kind == "report":
                reported = decision
            elif kind == BYPASS.kind:
                state.bypassed = member.number + 1
                state.keep_marks(calls, real)
            self._log_decision(call, member, decision)
            decision = PROCEED
            if call not in call.owed:
                return PROCEED
        if name == "commit":
            state.pipeline = None
        if name == "mail_from":
            state.note_sender(calls, real, said[0], rewrites)
        elif name == "rcpt_to":
            state.note_recipient(calls, real, said[0], rewrites)
        if decision is not PROCEED:
            return decision
        answer = self._mark(name, call, state, is_junk, rewritten)
        return answer if answer is not PROCEED or reported is None else reported

    def _mark(
        self,
        name: str,
        call: Any,
        state: ChainSession,
        is_junk: bool,
        rewritten: Decision | None,
    ) -> Decision:
        """Return the answer, with the mark that is due, or keep the mark for a later request."""
        if name in _MARKS_NOTHING or JUNK.kind not in call.hook.decisions:
            return rewritten or PROCEED
        if not (is_junk or state.junk_session or state.junk_message is not None):
            return rewritten or PROCEED
        tx = call.session.open_tx()
        if state.junk_message is not tx:
            state.junk_message = None  # its message has gone
        of_message = name in _MESSAGE_PHASES or tx is not None
        pending = (state.junk_session, state.junk_message)
        if is_junk and of_message:
            state.junk_message = tx
        elif is_junk:
            state.junk_session = True
        answer = rewritten or PROCEED
        is_due = is_junk or state.junk_session or state.junk_message is not None
        if rewritten is None and is_due:
            answer = JUNK
            state.junk_message = None
            if not of_message:
                state.junk_session = False
        if pending != (state.junk_session, state.junk_message):
            state.keep_marks(call.session.runtime.calls, call.session)
        return answer

    def _log_decision(self, call: Any, member: Member, decision: Decision) -> None:
        shown = decision.kind if call.hook.name == "auth" else repr(decision)
        session_logger(call.session.id).info("%s: %s by %s", call.hook.wire, shown, member)

    # Messages

    def lines(self, ctx: Context, lines: Any) -> Any:
        """Edit messages: the chain's data handler, with the members' stages in a row."""
        call = ctx._call
        real: Any = call.session
        state = self.state(real)
        state.pipeline = pipeline = Pipeline(real, self._observers)
        for member in self.members:
            if member.number >= state.bypassed:
                break
            view = Call(state.views[member.number], call.hook, call.line, 0)
            if member.is_asked(Context(view), message=True):
                pipeline.add(member, view)
        return pipeline.run(lines)

    # Reports

    def report(self, key: tuple[str, str]) -> Callable[..., None]:
        """Make the chain's handler of a report."""

        def chain(ctx: Context, *values: Any) -> None:
            self._report(key, ctx._call, values)

        return chain

    def _report(self, key: tuple[str, str], call: Any, values: tuple[Any, ...]) -> None:
        real = call.session
        state = self.state(real)
        calls: Calls = real.runtime.calls
        runner = real.runner
        for member, handler in self._told.get(key, ()):
            view = Call(state.views[member.number], call.hook, call.line, 0)
            try:
                calls.run(runner, handler, view, handler.fn, Context(view), *values)
            except BaseException as error:
                if runner.abandoned:
                    raise
                calls.answers.log_failure(view, handler, error, "")
        for observer in self._observers.values():
            observer.report(key, call.line)

    def replay(self, line: bytes) -> None:
        """Hand on a report that another worker had. Never switches greenlets."""
        for member in self.members:
            if member.observe:
                self._observers[member].replay(line)
            else:
                member.app._registry.on_replay(line)

    # Local objects

    def storage(self, kind: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Make the chain's two hooks for the members' objects of a session or a message."""

        def create(ctx: Context) -> list[Any]:
            state = self.state(ctx._call.session)
            made: list[Any] = []
            for member in self.members:
                hooks = getattr(member.app._registry, kind)
                if hooks is None or member.observe:
                    continue
                view = self._view(state, member, ctx)
                args = (Context(view),) if hooks.create_with_ctx else ()
                try:
                    value = hooks.create(*args)
                except Exception as error:
                    self._log_local(ctx, member, "create", error)
                    continue
                except BaseException:  # its session goes on without it, and without any object
                    delete(ctx, made)
                    raise
                self._set_local(kind, view, value)
                made.append((member, value))
            return made

        def delete(ctx: Context, made: list[Any]) -> None:
            state = self.state(ctx._call.session)
            for member, value in made:
                hooks = getattr(member.app._registry, kind)
                view = self._view(state, member, ctx)
                self._set_local(kind, view, None)
                if hooks.delete is None:
                    continue
                args = (Context(view), value) if hooks.delete_with_ctx else (value,)
                try:
                    hooks.delete(*args)
                except Exception as error:
                    self._log_local(ctx, member, "delete", error)

        return create, delete

    @staticmethod
    def _view(state: ChainSession, member: Member, ctx: Context) -> Call:
        call = ctx._call
        return Call(state.views[member.number], call.hook, call.line, call.body)

    @staticmethod
    def _set_local(kind: str, view: Call, value: Any) -> None:
        owner = view.session if kind == "session_storage" else view.session.open_tx()
        if owner is not None:
            owner.local = value

    @staticmethod
    def _log_local(ctx: Context, member: Member, what: str, error: Exception) -> None:
        shown = type(error).__name__ + ("" if carries_credentials(ctx._call) else f": {error}")
        session_logger(ctx.session.id).error(
            "%s of %r failed: %s at %s", what, member, shown, find_origin(error, None)
        )


def _value(name: str, value: str) -> str:
    """Return what the next member is asked about, as smtpd would ask: without brackets."""
    if name in ("mail_from", "rcpt_to") and value.startswith("<"):
        return value[1:].partition(">")[0]
    return value
