"""A member of a chain: a filter, when it is asked, and with which limits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._filter.handlers import Handler, Policy, make_error, parse_deadline, parse_policy
from .._process.log import Once
from ..errors import RegistrationError
from ..protocol import EVERYTHING, PHASES, TEMPFAIL, Decision, Phase
from .conditions import Condition

if TYPE_CHECKING:
    from .._filter.app import Filter
    from .._filter.context import Context

When = Condition | dict[str, Any] | Callable[["Context"], Any]


class Member:
    """One filter of a chain.

    Args:
        app: the filter.
        when: it is asked only where this holds; None is everywhere.
        unless: it is not asked where this holds.
        deadline: seconds, in place of the filter's default; None leaves that.
        on_error: policy, in place of the filter's default; None leaves that.
        observe: it decides and edits on the log only.
        name: for logs; None is the filter's own.

    Attributes:
        number: its place in the chain, from 0.
        key: its name, with a number where another member of the chain has the same.
        where: file and line of its block in a chain file, or None.
        source: what its block runs: ``run rbl --zone ...``; or the filter's name.
        is_conditional: there is anything to be asked before it is.
        needs: the fields of session and transaction that it may read, as bits.
        filters: its filter handlers by phase, with the chain's limits.
        reports: its report handlers by (subsystem, event).
        data: the kind of its data handler and the handler, or None.
        taps: its taps.

    Raises:
        RegistrationError: an argument is wrong.
    """

    def __init__(
        self,
        app: Filter,
        *,
        when: When | None = None,
        unless: When | None = None,
        deadline: float | None = None,
        on_error: Policy | None = None,
        observe: bool = False,
        name: str | None = None,
    ) -> None:
        self.app = app
        self.name = name or app.name
        self.when = _condition("when", when)
        self.unless = _condition("unless", unless)
        self.is_conditional = when is not None or unless is not None
        self.observe = bool(observe)
        self.number = 0
        self.key = self.name
        self._deadline = parse_deadline(deadline, None) if deadline is not None else None
        self._on_error = parse_policy(on_error, None, None) if on_error is not None else None
        self._once = Once()
        self._copies: dict[Handler, Handler] = {}
        self.where: tuple[str, int] | None = None
        self.source = f"filter {app.name}"
        self.needs = EVERYTHING
        self.filters: dict[str, Handler] = {}
        self.reports: dict[tuple[str, str], Handler] = {}
        self.data: tuple[str, Handler] | None = None
        self.taps: list[Handler] = []

    def __repr__(self) -> str:
        return f"{self.name} (member {self.number + 1})"

    def take_handlers(self) -> None:
        """Take the filter's handlers as they are now, with the limits that the chain gives."""
        own = self.app._registry
        self.needs = own.need_bits()
        commit = PHASES["commit"]
        self.filters = {
            name: self._limited(handler, PHASES[name]) for name, handler in own.filters.items()
        }
        self.reports = {key: self._limited(handler, None) for key, handler in own.reports.items()}
        data = own.data
        self.data = (data[0], self._limited(data[1], commit)) if data else None
        self.taps = [self._limited(handler, commit) for handler in own.taps]

    def handlers(self) -> list[Handler]:
        """Return all its handlers, with the chain's limits."""
        self.take_handlers()
        return [*self.filters.values(), *self.reports.values(), *self.data_handlers()]

    @property
    def has_data(self) -> bool:
        """Whether it sees the lines of messages."""
        return self.data is not None or bool(self.taps)

    def data_handlers(self) -> list[Handler]:
        """Return the handlers whose policy commit applies."""
        return [*([self.data[1]] if self.data else []), *self.taps]

    def is_asked(self, ctx: Context, *, message: bool) -> bool:
        """Return whether its conditions hold. One that raises lets the member run.

        Args:
            ctx: what it would be called with.
            message: for a message: ``unless`` then holds only if every recipient matches.
        """
        when, unless = self.when, self.unless
        if when is not None and not self._holds(when, ctx, False, True):
            return False
        return unless is None or not self._holds(unless, ctx, message, False)

    def _holds(self, condition: Condition, ctx: Context, every: bool, otherwise: bool) -> bool:
        try:
            return condition.matches(ctx, every)
        except Exception as error:
            text = (
                f"a condition of {self!r} failed, so it is asked: {type(error).__name__}: {error}"
            )
            self._once.error(type(error), text, session=ctx.session.id)
            return otherwise

    def _limited(self, handler: Handler, phase: Phase | None) -> Handler:
        """Return a handler, always the same, with the chain's limits where it has none."""
        if handler in self._copies:
            return self._copies[handler]
        limited = self._copies[handler] = copy.copy(handler)
        limited.owner = self.name
        if self._deadline is not None and "deadline" not in handler.explicit:
            limited.deadline = self._deadline
        if self._on_error is not None and "on_error" not in handler.explicit and phase is not None:
            limited.on_error = _legal(self._on_error, phase)
        return limited


def _legal(decision: Decision, phase: Phase) -> Decision:
    """Return a policy, or tempfail where the phase does not take it, as for a filter's default."""
    return decision if decision.kind in phase.decisions else TEMPFAIL


def _condition(what: str, value: When | None) -> Condition | None:
    if value is None or isinstance(value, Condition):
        return value
    try:
        return Condition(value)
    except RegistrationError as error:
        raise make_error(f"{what}: {error.text}") from None
