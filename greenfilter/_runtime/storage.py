"""Local storage: the author's own object for each session and each message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from .._filter.context import Context
from .._filter.handlers import Handler
from .._process.log import find_origin, session_logger
from ..protocol import PROCEED, Call
from ..protocol._credentials import carries_credentials
from .runners import Runner

if TYPE_CHECKING:
    from .._filter.app import Filter
    from .._filter.registry import LocalStorage


class _Local:
    """The two hooks of one kind of local object, as handlers."""

    def __init__(self, hooks: LocalStorage, what: str, deadline: float) -> None:
        self.hooks = hooks
        self.create = _handler(hooks.create, what, hooks.create_with_ctx, deadline)
        self.delete: Handler | None = None
        if hooks.delete is not None:
            count = 1 + hooks.delete_with_ctx
            self.delete = _handler(hooks.delete, f"{what} delete", count, deadline)


def _handler(fn: Callable[..., Any], what: str, parameters: int, deadline: float) -> Handler:
    return Handler(
        fn,
        what,
        parameters,
        deadline=deadline,
        on_error=PROCEED,
        thread=False,
        cancel_on_close=False,
    )


class Storage:
    """Makes and deletes local objects, each exactly once.

    Args:
        app: the filter.
        clock: gives the time.
    """

    def __init__(self, app: Filter, clock: Callable[[], float]) -> None:
        registry = app._registry
        session, message = registry.session_storage, registry.message_storage
        self._session = _Local(session, "local_session", app.deadline) if session else None
        self._message = _Local(message, "local_message", app.deadline) if message else None
        self._clock = clock
        self._made: set[Any] = set()  # sessions and transactions whose object is to be deleted
        self.used = self._session is not None or self._message is not None

    def begin(self, runner: Runner, call: Call) -> None:
        """Make what the session and the transaction of an event do not have yet."""
        session = call.session
        if self._session is not None and not session._begun:
            self._create(runner, call, self._session, session)
        if self._message is not None:
            tx = session.open_tx()
            if tx is not None and not tx._begun:
                self._create(runner, call, self._message, tx)

    def end_message(self, runner: Runner, call: Call) -> None:
        """Delete the object of the open transaction."""
        if self._message is not None:
            self._delete(runner, call, self._message, call.session.open_tx())

    def end_session(self, runner: Runner, call: Call) -> None:
        """Delete the object of the session."""
        if self._session is not None:
            self._delete(runner, call, self._session, call.session)

    def _create(self, runner: Runner, call: Call, local: _Local, owner: Any) -> None:
        owner._begun = True
        args = (Context(call),) if local.hooks.create_with_ctx else ()
        made, value = self._call(runner, call, local.create, args)
        if runner.abandoned:  # its session has gone on without it, and without the object
            if made:
                self._call_delete(runner, call, local, value)
            raise GreenletExit
        if made:
            owner.local = value
            self._made.add(owner)

    def _delete(self, runner: Runner, call: Call, local: _Local, owner: Any) -> None:
        if owner not in self._made:
            return
        self._made.remove(owner)
        value, owner.local = owner.local, None
        self._call_delete(runner, call, local, value)
        if runner.abandoned:
            raise GreenletExit

    def _call_delete(self, runner: Runner, call: Call, local: _Local, value: Any) -> None:
        if local.delete is not None:
            args = (Context(call), value) if local.hooks.delete_with_ctx else (value,)
            self._call(runner, call, local.delete, args)

    def _call(self, runner: Runner, call: Call, handler: Handler, args: Any) -> tuple[bool, Any]:
        """Call a hook; return whether it returned, and what."""
        outer = runner.running
        runner.begin(handler, self._clock())
        try:
            return True, handler.fn(*args)
        except BaseException as error:
            at = find_origin(error, None)
            text = "" if carries_credentials(call) else f": {error}"
            session_logger(call.session.id).error(
                "%r failed: %s%s at %s", handler, type(error).__name__, text, at
            )
            return False, None
        finally:
            runner.begin(outer, self._clock())
