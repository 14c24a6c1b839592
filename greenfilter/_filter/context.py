"""What a handler receives first: the event it is called for, its session and transaction."""

from __future__ import annotations

from typing import Any, Final, Protocol

from .._process.log import SessionLogger, session_logger
from ..errors import DecisionError
from ..protocol import Call, Decision, Phase, Session, Transaction


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


class Context(Call):
    """The event that a handler was called for.

    Safe to use from threads of the pool. Reading never switches greenlets.

    Attributes:
        session: the SMTP session.
    """

    __slots__ = ("_tx",)

    @property
    def phase(self) -> str | None:
        """Name of the filter phase, such as ``rcpt_to``; None in a report."""
        return self.hook.name if isinstance(self.hook, Phase) else None

    @property
    def event(self) -> str | None:
        """Name of the report event, such as ``tx_rcpt``; None in a filter phase."""
        return None if isinstance(self.hook, Phase) else self.hook.name

    @property
    def incoming(self) -> bool:
        """False for smtp-out."""
        return self.session.incoming

    @property
    def tx(self) -> Transaction | None:
        """The open transaction, or None outside of one. At mail_from it is not open yet."""
        try:
            return self._tx
        except AttributeError:
            return self.session.tx

    @property
    def log(self) -> SessionLogger:
        """A logger that puts the session id into each record."""
        return session_logger(self.session.id)

    def defer(self) -> Any:
        """Keep the request open when the handler returns what this gives: ``return ctx.defer()``.

        Later events of the session go on. Answer with :meth:`reply`; at its deadline the request
        is answered by ``on_error``.

        Raises:
            DecisionError: called in a report or a data handler, which have nothing to defer.
        """
        if self.token is None or not isinstance(self.hook, Phase) or not self.hook.decisions:
            raise DecisionError("only a filter request can be deferred")
        self._tx = self.session.open_tx()
        return DEFERRED

    def reply(self, decision: Decision | None = None) -> bool:
        """Answer the request, from any greenlet or OS thread. Never switches greenlets.

        Args:
            decision: as a handler returns it. One that is not legal here is logged, and
                ``on_error`` answers.

        Returns:
            Whether this was the answer. False if there was one before, and nothing changes.

        Raises:
            DecisionError: called in a report or a data handler, which take no answer.
        """
        if self.token is None or not isinstance(self.hook, Phase) or not self.hook.decisions:
            raise DecisionError("only a filter request can be answered")
        runtime: Answering = self.session.runtime  # type: ignore[attr-defined]
        return runtime.reply(self, decision)


__all__ = ["DEFERRED", "Context", "Session"]
