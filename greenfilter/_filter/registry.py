"""What an author has registered with a filter, and what smtpd has to send for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..errors import RegistrationError
from ..protocol import EVENTS, EVERYTHING, NEED_EVENTS, PHASES, Config, Decision, Need, Phase
from ..protocol._catalogue import ENDS_TRANSACTION
from .handlers import (
    Handler,
    Policy,
    check_parameters,
    locate,
    make_error,
    parse_deadline,
    parse_policy,
    takes_ctx,
)

_DATA_MODES = ("data_line", "lines", "message", "raw_line")
# What may begin or end the life of a message's local object.
_MESSAGE_EVENTS = ("tx-begin", *(wire.decode() for wire in ENDS_TRANSACTION))
_OPTIONS = ("deadline", "on_error", "thread", "cancel_on_close")


class Defaults(Protocol):
    """What a registry needs to know of its filter: what applies unless a handler says otherwise."""

    deadline: float
    on_error: Policy
    needs: Need | None


class LocalStorage:
    """The two hooks of ``local_session`` or ``local_message``."""

    __slots__ = ("create", "create_with_ctx", "delete", "delete_with_ctx")

    def __init__(
        self, create: Callable[..., Any], delete: Callable[..., Any] | None, what: str
    ) -> None:
        self.create = create
        self.delete = delete
        self.create_with_ctx = takes_ctx(create, 0)
        self.delete_with_ctx = delete is not None and takes_ctx(delete, 1)
        if not isinstance(create, type):
            check_parameters(create, int(self.create_with_ctx), what)
        if delete is not None:
            check_parameters(delete, 1 + int(self.delete_with_ctx), f"{what} delete")


class Registry:
    """The handlers of one filter, and what they ask of smtpd.

    The runtime, chains and commands work with it; authors fill it with the decorators of
    :class:`~greenfilter.Filter`, and never see it.

    Args:
        app: the filter that they belong to.

    Attributes:
        filters: handlers by phase.
        reports: handlers by (subsystem, event), with the event's Python name.
        data: the kind of the data handler (``data_line``, ``lines``, ``message`` or ``raw_line``)
            and the handler, or None.
        taps: in the order in which they were registered.
        config_functions: functions to call with the filter's ``config``.
        session_storage: hooks of ``local_session``, or None.
        message_storage: hooks of ``local_message``, or None.
    """

    def __init__(self, app: Defaults) -> None:
        self._app = app
        self.filters: dict[str, Handler] = {}
        self.reports: dict[tuple[str, str], Handler] = {}
        self.data: tuple[str, Handler] | None = None
        self.taps: list[Handler] = []
        self.config_functions: list[Callable[[Config], Any]] = []
        self.session_storage: LocalStorage | None = None
        self.message_storage: LocalStorage | None = None
        self._frozen = False

    def is_empty(self) -> bool:
        """Return whether nothing was registered."""
        return not (self.filters or self.reports or self.data or self.taps)

    def handlers(self) -> list[Handler]:
        """Return all handlers."""
        data = [self.data[1]] if self.data else []
        return [*self.filters.values(), *self.reports.values(), *data, *self.taps]

    # Filling it

    def check_open(self) -> None:
        """Raise RegistrationError if the filter runs already."""
        if self._frozen:
            raise make_error(f"{self._app!r} runs already; register before it starts")

    def freeze(self) -> None:
        """End registration: from now on it raises RegistrationError."""
        self._frozen = True

    def add(self, kind: str, name: str, fn: Any, options: dict[str, Any]) -> None:
        """Register a handler.

        Args:
            kind: ``filter``, ``report`` or ``data``.
            name: name of the hook.
            fn: the handler.
            options: the decorator's arguments.

        Raises:
            RegistrationError: an option, or the handler, does not fit the hook.
        """
        self.check_open()
        hook = name if kind == "data" else f"{kind}.{name}"
        at = locate(fn)
        allowed = allowed_options(kind, name)
        for option in options:
            if option not in allowed:
                known = ", ".join(allowed)
                raise make_error(f"{hook} has no option {option!r}; it has: {known}", at)
        phase = PHASES.get("commit" if kind == "data" or name == "data_line" else name)
        handler = Handler(
            fn,
            hook,
            _parameters(kind, name),
            deadline=parse_deadline(options.get("deadline", self._app.deadline), at),
            on_error=self._policy(options, phase if kind != "report" else None, hook, at),
            explicit=frozenset(options),
            thread=bool(options.get("thread", False)),
            cancel_on_close=bool(options.get("cancel_on_close", False)),
        )
        if kind == "report":
            self._add_report("smtp-out" if options.get("outgoing") else "smtp-in", name, handler)
        elif name == "tap":
            self.taps.append(handler)
        elif name in _DATA_MODES:
            self._add_data(name, handler)
        else:
            self._add_filter(name, handler)

    def add_on_config(self, fn: Callable[..., Any]) -> None:
        """Register a function to call with the filter's ``config``."""
        self.check_open()
        check_parameters(fn, 1, "on_config")
        self.config_functions.append(fn)

    def add_session_storage(
        self, create: Callable[..., Any], delete: Callable[..., Any] | None
    ) -> None:
        """Register the hooks of ``local_session``."""
        self.check_open()
        if self.session_storage is not None:
            raise make_error("local_session is set already", locate(create))
        self.session_storage = LocalStorage(create, delete, "local_session")

    def add_message_storage(
        self, create: Callable[..., Any], delete: Callable[..., Any] | None
    ) -> None:
        """Register the hooks of ``local_message``."""
        self.check_open()
        if self.message_storage is not None:
            raise make_error("local_message is set already", locate(create))
        self.message_storage = LocalStorage(create, delete, "local_message")

    def commit_deadline(self) -> float:
        """Return the seconds that smtpd may have to wait at commit: for the taps too."""
        handler = self.filters.get("commit")
        own = handler.deadline if handler is not None else self._app.deadline
        return max([own, *(tap.deadline for tap in self.taps)])

    # What smtpd has to send

    def phases(self) -> set[str]:
        """Return the phases to register with smtpd, on the wire."""
        names = {PHASES[name].wire for name in self.filters}
        if self.data is not None or self.taps:
            names |= {"data-line", "commit"}
        return names

    def deliveries(self) -> set[tuple[str, str]]:
        """Return the reports that handlers or storage hooks wait for, as (subsystem, event)."""
        wanted = {(subsystem, EVENTS[name].wire) for subsystem, name in self.reports}
        for subsystem in self._subsystems():
            if self.session_storage is not None:
                wanted |= {(subsystem, "link-connect"), (subsystem, "link-disconnect")}
            if self.data or self.taps:
                wanted.add((subsystem, "link-disconnect"))
            if self.message_storage is not None:
                wanted |= {(subsystem, event) for event in _MESSAGE_EVENTS}
        return wanted

    def registered_reports(self) -> set[tuple[str, str]]:
        """Return all reports to register: the deliveries, and what keeps the state true."""
        kept = {
            event
            for need, events in NEED_EVENTS.items()
            if need.value & self.need_bits()
            for event in events
        } | {"link-disconnect"}
        return self.deliveries() | {
            (subsystem, event) for subsystem in self._subsystems() for event in kept
        }

    def need_bits(self) -> int:
        """Return ``needs`` as bits; a message's local object needs its transaction."""
        needs = self._app.needs
        if needs is None:
            return EVERYTHING
        return (needs | Need.MESSAGE_ID if self.message_storage else needs).value

    # Its life, for filters that have to know of it

    def configure(self, calls: Any) -> None:
        """Do what can only be done once the filter's ``config`` is known; for chains. May switch.

        Args:
            calls: calls the handlers in the runtime that the filter is in.

        Raises:
            UsageError: the filter cannot start.
        """

    def on_end(self) -> None:
        """End what :meth:`configure` has begun. May switch greenlets."""

    def on_close(self, session: Any) -> None:
        """Note that a client has left; for chains. Never switches greenlets."""

    def on_replay(self, line: bytes) -> None:
        """Note a report that another worker had; for chains. Never switches greenlets."""

    def _subsystems(self) -> set[str]:
        subsystems = {subsystem for subsystem, _ in self.reports}
        if self.filters or self.data or self.taps or not subsystems:
            subsystems.add("smtp-in")
        return subsystems

    def _policy(
        self, options: dict[str, Any], phase: Phase | None, hook: str, at: str | None
    ) -> Decision:
        """Return the handler's policy, or the default if the app's is not legal here (junk)."""
        if "on_error" in options:
            decision = parse_policy(options["on_error"], phase, at)
            if decision.kind == "report" and phase and hook != f"filter.{phase.name}":
                raise make_error(f"on_error={decision!r} cannot be kept for commit", at)
            return decision
        decision = parse_policy(self._app.on_error, None, at)
        if phase is not None and decision.kind not in phase.decisions:
            return parse_policy("tempfail", phase, at)
        return decision

    def _add_report(self, subsystem: str, name: str, handler: Handler) -> None:
        if (subsystem, name) in self.reports:
            raise self._twice(handler, self.reports[subsystem, name])
        self.reports[subsystem, name] = handler

    def _add_filter(self, name: str, handler: Handler) -> None:
        if name in self.filters:
            raise self._twice(handler, self.filters[name])
        self.filters[name] = handler

    def _add_data(self, name: str, handler: Handler) -> None:
        if self.data is not None:
            other = self.data[1]
            raise make_error(
                f"{handler.hook}: a filter has one of filter.data_line, lines and message, "
                f"and {other.name} ({other.where}) is its {other.hook} already",
                handler.where,
            )
        self.data = (name, handler)

    @staticmethod
    def _twice(handler: Handler, other: Handler) -> RegistrationError:
        return make_error(
            f"{handler.hook} has a handler already: {other.name} ({other.where})", handler.where
        )


def _parameters(kind: str, name: str) -> int:
    if kind == "data":
        return 2
    return 1 + len((PHASES if kind == "filter" else EVENTS)[name].fields)


def allowed_options(kind: str, name: str) -> tuple[str, ...]:
    """Return the options that a hook's decorator takes."""
    if kind == "report":
        return ("deadline", "thread", "cancel_on_close", "outgoing")
    if name in ("lines", "tap", "raw_line"):
        # These wait for the client's lines; in a pool, a few slow clients would take all threads.
        return tuple(option for option in _OPTIONS if option != "thread")
    return _OPTIONS
