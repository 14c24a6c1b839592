"""Local storage: the author's own object for each session and each message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from .._handlers import Handler
from .._log import origin, session_logger
from ..protocol import PROCEED

if TYPE_CHECKING:
    from .._app import Filter, LocalStorage
    from .._context import Context
    from ._workers import Worker


class Storage:
    """Makes and deletes local objects, each exactly once.

    Args:
        app: the filter.
        clock: gives the time.
    """

    def __init__(self, app: Filter, clock: Callable[[], float]) -> None:
        self._session = app.session_storage
        self._message = app.message_storage
        self._deadline = app.deadline
        self._clock = clock
        self._made: set[Any] = set()  # sessions and transactions whose object is to be deleted
        self.used = self._session is not None or self._message is not None

    def begin(self, worker: Worker, call: Context) -> None:
        """Make what the session and the transaction of an event do not have yet."""
        session = call.session
        if self._session is not None and not session.begun:
            session.begun = True
            self._made.add(session)
            session.local = self._create(worker, call, self._session, "local_session")
        if self._message is not None:
            tx = session.open_tx()
            if tx is not None and not tx.begun:
                tx.begun = True
                self._made.add(tx)
                tx.local = self._create(worker, call, self._message, "local_message")

    def end_message(self, worker: Worker, call: Context) -> None:
        """Delete the object of the open transaction."""
        if self._message is not None:
            tx = call.session.open_tx()
            if tx is not None and tx in self._made:
                self._made.remove(tx)
                local, tx.local = tx.local, None
                self._delete(worker, call, self._message, local, "local_message")

    def end_session(self, worker: Worker, call: Context) -> None:
        """Delete the object of the session."""
        session = call.session
        if self._session is not None and session in self._made:
            self._made.remove(session)
            local, session.local = session.local, None
            self._delete(worker, call, self._session, local, "local_session")

    def _create(self, worker: Worker, call: Context, hooks: LocalStorage, what: str) -> Any:
        args = (call,) if hooks.create_with_ctx else ()
        return self._call(worker, call, hooks.create, what, args)

    def _delete(
        self, worker: Worker, call: Context, hooks: LocalStorage, local: Any, what: str
    ) -> None:
        if hooks.delete is not None:
            args = (call, local) if hooks.delete_with_ctx else (local,)
            self._call(worker, call, hooks.delete, f"{what} delete", args)

    def _call(
        self, worker: Worker, call: Context, fn: Callable[..., Any], what: str, args: Any
    ) -> Any:
        handler = Handler(
            fn,
            what,
            len(args),
            deadline=self._deadline,
            on_error=PROCEED,
            thread=False,
            cancel_on_close=False,
        )
        outer = worker.running
        worker.begin(handler, self._clock())
        try:
            return fn(*args)
        except BaseException as error:
            at = origin(error, None)
            session_logger(call.session.id).error(
                "%r failed: %s: %s at %s", handler, type(error).__name__, error, at
            )
            return None
        finally:
            worker.begin(outer, self._clock())
            if worker.abandoned:
                raise GreenletExit  # its session has gone on without it
