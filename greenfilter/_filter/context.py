"""The first argument of every handler: the event, its session and its transaction.

Authors see these classes. Behind them stand ``protocol.Session`` and ``protocol.Call``, which the
parser, the guard and the runtime share.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from .. import protocol
from .._process.log import SessionLogger, session_logger
from ..errors import DecisionError
from ..protocol import Address, Call, Decision, Phase, Status, Transaction


class _Deferred:
    """The type of :data:`DEFERRED`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "DEFERRED"


DEFERRED: Final = _Deferred()
"""What ``ctx.defer()`` returns: the request stays open when the handler has returned."""


class Answering(Protocol):
    """What a context needs of the runtime."""

    def reply(self, call: Call, decision: Decision | None) -> bool:
        """Answer a request from any greenlet or thread."""


class Session:
    """One SMTP session of smtpd, incoming or outgoing. Reading never switches greenlets.

    A field that ``Filter(needs=...)`` does not name raises NeedError; one that smtpd has not
    reported yet is None.
    """

    __slots__ = ("_state",)

    def __init__(self, state: protocol.Session) -> None:
        self._state = state

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name):
            raise AttributeError(
                f"'Session' object has no attribute {name!r}; for an object of your own: "
                "app.local_session(dict), then ctx.session.local"
            )
        object.__setattr__(self, name, value)

    @property
    def id(self) -> str:
        """smtpd's id of the session: 16 hex digits."""
        return self._state.id

    @property
    def incoming(self) -> bool:
        """False for smtp-out."""
        return self._state.incoming

    @property
    def closed(self) -> bool:
        """The client has left. True at once, also while a handler of the session runs."""
        return self._state.closed

    @property
    def local(self) -> Any:
        """The filter's own object for this session (``app.local_session``), else None."""
        return self._state.local

    @local.setter
    def local(self, value: Any) -> None:
        self._state.local = value

    @property
    def src(self) -> Address | None:
        """The client's end of the connection."""
        return self._state.src

    @property
    def dst(self) -> Address | None:
        """The server's end of the connection."""
        return self._state.dst

    @property
    def rdns(self) -> str | None:
        """Reverse DNS name of the client, or ``<unknown>``."""
        return self._state.rdns

    @property
    def fcrdns(self) -> Status | None:
        """Whether that name leads back to the address: ok, permfail or tempfail."""
        return self._state.fcrdns

    @property
    def greeting(self) -> str | None:
        """Host name in the server's greeting."""
        return self._state.greeting

    @property
    def identity(self) -> str | None:
        """What HELO or EHLO said, after rewrites."""
        return self._state.identity

    @property
    def method(self) -> str | None:
        """``HELO``, ``EHLO`` or (smtp-out) ``LHLO``."""
        return self._state.method

    @property
    def ciphers(self) -> str | None:
        """Version and cipher of TLS, or None without TLS."""
        return self._state.ciphers

    @property
    def username(self) -> str | None:
        """User name after a successful AUTH, decoded."""
        return self._state.username

    @property
    def authenticated(self) -> bool:
        """Whether AUTH succeeded."""
        return self._state.authenticated

    @property
    def tx(self) -> Transaction | None:
        """The open transaction, or None outside of one.

        Raises:
            NeedError: needs= names no field of transactions.
        """
        return self._state.tx


class Context:
    """The event that a handler was called for.

    Safe to use from threads of the pool. Reading never switches greenlets.
    """

    __slots__ = ("_call", "_tx")

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def phase(self) -> str | None:
        """Name of the filter phase, such as ``rcpt_to``; None in a report."""
        hook = self._call.hook
        return hook.name if isinstance(hook, Phase) else None

    @property
    def event(self) -> str | None:
        """Name of the report event, such as ``tx_rcpt``; None in a filter phase."""
        hook = self._call.hook
        return None if isinstance(hook, Phase) else hook.name

    @property
    def time(self) -> float:
        """When smtpd wrote the line: seconds since the epoch. Steps back now and then."""
        return self._call.time

    @property
    def version(self) -> tuple[int, int]:
        """Version of the protocol that the line is written in."""
        return self._call.version

    @property
    def incoming(self) -> bool:
        """False for smtp-out."""
        return self._call.session.incoming

    @property
    def session(self) -> Session:
        """The SMTP session."""
        state = self._call.session
        if state.view is None:
            state.view = Session(state)
        return state.view  # type: ignore[no-any-return]

    @property
    def tx(self) -> Transaction | None:
        """The open transaction, or None outside of one. At mail_from it is not open yet."""
        try:
            return self._tx
        except AttributeError:
            return self._call.session.tx

    @property
    def log(self) -> SessionLogger:
        """A logger that puts the session id into each record."""
        return session_logger(self._call.session.id)

    def defer(self) -> Any:
        """Return a value that keeps the request open: ``return ctx.defer()``.

        Later events of the session are handled meanwhile. Answer with :meth:`reply`; at the
        deadline ``on_error`` answers.

        Raises:
            DecisionError: it is called in a report or a data handler, which have nothing to defer.
        """
        if not self._takes_an_answer():
            raise DecisionError("only a filter request can be deferred")
        self._tx = self._call.session.open_tx()
        return DEFERRED

    def reply(self, decision: Decision | None = None) -> bool:
        """Answer the request, from any greenlet or OS thread. Never switches greenlets.

        Args:
            decision: as a handler returns it. One that is not legal here is logged, and
                ``on_error`` answers.

        Returns:
            Whether this was the answer. False if the request was answered before; nothing changes.

        Raises:
            DecisionError: it is called in a report or a data handler, which take no answer.
        """
        if not self._takes_an_answer():
            raise DecisionError("only a filter request can be answered")
        runtime: Answering = self._call.session.runtime  # type: ignore[attr-defined]
        return runtime.reply(self._call, decision)

    def _takes_an_answer(self) -> bool:
        hook = self._call.hook
        return self._call.body > 0 and isinstance(hook, Phase) and bool(hook.decisions)


__all__ = ["DEFERRED", "Context", "Session"]
