"""The filter object: decorators put handlers into a table. No I/O, and nothing runs here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, overload

from .._process.python import command
from ..errors import RegistrationError, UsageError
from ..protocol import EVENTS, EVERYTHING, NEED_EVENTS, PHASES, Config, Need
from .handlers import Handler, Policy, check_parameters, misuse, policy, seconds, takes_ctx, where
from .hook_docs import hook_doc

F = TypeVar("F", bound=Callable[..., Any])

_DATA_MODES = ("data_line", "lines", "message", "raw_line")
# What may begin or end the life of a message's local object.
_MESSAGE_EVENTS = ("tx-begin", "tx-reset", "link-disconnect")
_OPTIONS = ("deadline", "on_error", "thread", "cancel_on_close")


class Loaded(SystemExit):
    """Raised by :meth:`Filter.run` where greenfilter loads the file: what follows is not for now.

    Args:
        app: the filter that the file runs.

    Attributes:
        applies: this process is greenfilter's own, not a script that starts it; also a callback
            that calls run() may not put another program in its place.
    """

    applies = False

    def __init__(self, app: Filter) -> None:
        super().__init__()
        self.app = app


class _Hook:
    """A decorator for one hook: bare (``@app.filter.ehlo``) or with options."""

    def __init__(self, app: Filter, kind: str, name: str) -> None:
        self._app = app
        self._kind = kind
        self._name = name
        self.__name__ = name
        self.__doc__ = hook_doc(kind, name, _allowed_options(kind, name))

    @overload
    def __call__(self, fn: F, /) -> F: ...
    @overload
    def __call__(
        self,
        *,
        deadline: float = ...,
        on_error: Policy = ...,
        thread: bool = ...,
        cancel_on_close: bool = ...,
        outgoing: bool = ...,
    ) -> Callable[[F], F]: ...
    def __call__(self, fn: Any = None, /, **options: Any) -> Any:  # type: ignore[misc]
        if fn is not None:
            self._app._register(self._kind, self._name, fn, options)
            return fn

        def decorate(fn: F) -> F:
            self._app._register(self._kind, self._name, fn, options)
            return fn

        return decorate


class _Hooks:
    """``app.filter`` or ``app.report``: one decorator for each name of the catalogue."""

    def __init__(self, app: Filter, kind: str, names: dict[str, Any]) -> None:
        self._app = app
        self._kind = kind
        self._names = names

    def __getattr__(self, name: str) -> _Hook:
        if name.startswith("__"):  # what Python asks every object for
            raise AttributeError(name)
        if name not in self._names:
            known = ", ".join(self._names)
            raise misuse(f"app.{self._kind}.{name} does not exist; there are: {known}")
        return _Hook(self._app, self._kind, name)

    def __dir__(self) -> list[str]:
        return list(self._names)


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


class Filter:
    """A filter: what its author registered, and its limits.

    Args:
        name: for logs.
        deadline: seconds that a handler may take, unless it says otherwise itself. Then
            ``on_error`` answers, and the handler gets :class:`~greenfilter.HandlerTimeout`.
        on_error: what answers when a handler raises, returns something that is no decision, or
            is too late: ``"tempfail"`` (451 4.3.0), ``"proceed"``, ``"junk"`` or a decision.
        needs: fields of session and transaction that handlers read. By default all of them; with
            less, smtpd sends fewer reports, and reading another field raises NeedError.
        threads: threads of the pool for ``thread=True``. Up to four times as many that hang are
            replaced; when there are more, the supervisor replaces the worker.
        auto_thread: run a handler that has kept the loop three times, so that all sessions waited
            for it, in a thread from then on. All such handlers share one, one call at a time.
        max_concurrency: handlers running at once; beyond it smtpd waits.
        max_message_bytes: a longer message is refused with 451 at commit where the filter has to
            keep it.
        max_sessions: sessions held at once; beyond it the oldest one is let go, and its message
            refused with a 4xx or 5xx at commit.

    Attributes:
        config: what smtpd said of itself; filled in when the filter runs.
    """

    def __init__(
        self,
        name: str,
        *,
        deadline: float = 30.0,
        on_error: Policy = "tempfail",
        needs: Need | None = None,
        threads: int = 8,
        auto_thread: bool = True,
        max_concurrency: int = 20_000,
        max_message_bytes: int = 256 << 20,
        max_sessions: int = 1 << 17,
    ) -> None:
        self.name = name
        self.deadline = seconds(deadline, None)
        policy(on_error, None, None)
        self.on_error = on_error
        self.threads = _positive("threads", threads)
        self.auto_thread = bool(auto_thread)
        self.max_concurrency = _positive("max_concurrency", max_concurrency)
        self.max_message_bytes = _positive("max_message_bytes", max_message_bytes)
        self.max_sessions = _positive("max_sessions", max_sessions)
        if needs is not None and not isinstance(needs, Need):
            raise misuse(f"needs={needs!r} is no Need; write: needs=Need.RDNS | Need.SRC")
        self.needs = needs
        self.config = Config()
        self.filter = _Hooks(self, "filter", PHASES)
        self.report = _Hooks(self, "report", EVENTS)
        self.lines = _Hook(self, "data", "lines")
        self.message = _Hook(self, "data", "message")
        self.tap = _Hook(self, "data", "tap")
        self._raw_line = _Hook(self, "data", "raw_line")  # for greenfilter.osmtpd
        self.on_config_handlers: list[Callable[[Config], Any]] = []
        self.filters: dict[str, Handler] = {}
        self.reports: dict[tuple[str, str], Handler] = {}
        self.data: tuple[str, Handler] | None = None
        self.taps: list[Handler] = []
        self.session_storage: LocalStorage | None = None
        self.message_storage: LocalStorage | None = None
        self._started = False

    def __repr__(self) -> str:
        return f"Filter({self.name!r})"

    def local_session(
        self, create: Callable[..., Any], delete: Callable[..., Any] | None = None
    ) -> None:
        """Make an object of the filter's own for every session: ``ctx.session.local``.

        Args:
            create: makes it; called with ctx if it takes a parameter, when the session begins.
            delete: called with (ctx, object), or (object) if it takes one parameter, exactly once
                when the session ends in whatever way.
        """
        self._open()
        if self.session_storage is not None:
            raise misuse("local_session was set already", where(create))
        self.session_storage = LocalStorage(create, delete, "local_session")

    def local_message(
        self, create: Callable[..., Any], delete: Callable[..., Any] | None = None
    ) -> None:
        """Make an object of the filter's own for every transaction: ``ctx.tx.local``.

        Arguments as for :meth:`local_session`.
        """
        self._open()
        if self.message_storage is not None:
            raise misuse("local_message was set already", where(create))
        self.message_storage = LocalStorage(create, delete, "local_message")

    def on_config(self, fn: F) -> F:
        """Call a function with :attr:`config` once smtpd has sent it, before mail is served.

        It may block; smtpd waits for it with the start of its service. If it raises, the filter
        goes on, and the error is logged.
        """
        self._open()
        check_parameters(fn, 1, "on_config")
        self.on_config_handlers.append(fn)
        return fn

    def run(self) -> NoReturn:
        """Run this file under ``greenfilter run``, in place of this process. For ``__main__``.

        The file is started anew so that blocking calls can be made cooperative before it is
        imported, and so that nothing it prints from then on reaches smtpd. What a script has
        written to standard output before this may have: ``greenfilter run`` in smtpd.conf, or in
        the script's first line, is safe from its beginning.

        Raises:
            UsageError: called neither from a script nor while greenfilter loads a file.
        """
        if Loaded.applies:
            raise Loaded(self)
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        if not script or not os.path.exists(script):
            raise UsageError("app.run() is for the end of a script; or use: greenfilter run FILTER")
        script = os.path.abspath(script)
        os.execv(sys.executable, command("greenfilter", "run", script, *sys.argv[1:]))

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
        if self.needs is None:
            return EVERYTHING
        return (self.needs | Need.MESSAGE_ID if self.message_storage else self.needs).value

    def configure(self, engine: Any) -> None:
        """Do what can only be done once :attr:`config` is known; for chains. May switch.

        Args:
            engine: of the runtime that the filter is in.

        Raises:
            UsageError: the filter cannot start.
        """

    def on_end(self) -> None:
        """End what :meth:`configure` has begun. May switch greenlets."""

    def on_close(self, session: Any) -> None:
        """Take note that a client has left; for chains. Never switches greenlets."""

    def on_replay(self, line: bytes) -> None:
        """Take note of a report that another worker had; for chains. Never switches greenlets."""

    def freeze(self) -> None:
        """End registration: from now on it raises RegistrationError."""
        self._started = True

    def is_empty(self) -> bool:
        """Return whether nothing was registered."""
        return not (self.filters or self.reports or self.data or self.taps)

    def handlers(self) -> list[Handler]:
        """Return all handlers, each with its hook."""
        data = [self.data[1]] if self.data else []
        return [*self.filters.values(), *self.reports.values(), *data, *self.taps]

    def _subsystems(self) -> set[str]:
        subsystems = {subsystem for subsystem, _ in self.reports}
        if self.filters or self.data or self.taps or not subsystems:
            subsystems.add("smtp-in")
        return subsystems

    def _open(self) -> None:
        if self._started:
            raise misuse(f"{self!r} runs already; register before it starts")

    def _register(self, kind: str, name: str, fn: Any, options: dict[str, Any]) -> None:
        self._open()
        hook = name if kind == "data" else f"{kind}.{name}"
        at = where(fn)
        allowed = _allowed_options(kind, name)
        for option in options:
            if option not in allowed:
                known = ", ".join(allowed)
                raise misuse(f"{hook} has no option {option!r}; it has: {known}", at)
        outgoing = options.get("outgoing", False)
        phase = PHASES.get("commit" if kind == "data" or name == "data_line" else name)
        handler = Handler(
            fn,
            hook,
            _parameters(kind, name),
            deadline=seconds(options.get("deadline", self.deadline), at),
            on_error=self._policy(options, phase if kind != "report" else None, hook, at),
            explicit=frozenset(options),
            thread=bool(options.get("thread", False)),
            cancel_on_close=bool(options.get("cancel_on_close", False)),
        )
        if kind == "report":
            self._add_report("smtp-out" if outgoing else "smtp-in", name, handler)
        elif name == "tap":
            self.taps.append(handler)
        elif name in _DATA_MODES:
            self._add_data(name, handler)
        else:
            self._add_filter(name, handler)

    def _policy(self, options: dict[str, Any], phase: Any, hook: str, at: str | None) -> Any:
        """Return the handler's policy, or the default if the app's is not legal here (junk)."""
        if "on_error" in options:
            decision = policy(options["on_error"], phase, at)
            if decision.kind == "report" and hook != f"filter.{phase.name}":
                raise misuse(f"on_error={decision!r} cannot be kept for commit", at)
            return decision
        decision = policy(self.on_error, None, at)
        if phase is not None and decision.kind not in phase.decisions:
            return policy("tempfail", phase, at)
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
            raise misuse(
                f"{handler.hook}: a filter has one of filter.data_line, lines and message, "
                f"and {other.name} ({other.where}) is its {other.hook} already",
                handler.where,
            )
        self.data = (name, handler)

    @staticmethod
    def _twice(handler: Handler, other: Handler) -> RegistrationError:
        return misuse(
            f"{handler.hook} has a handler already: {other.name} ({other.where})", handler.where
        )


def _parameters(kind: str, name: str) -> int:
    if kind == "data":
        return 2
    return 1 + len((PHASES if kind == "filter" else EVENTS)[name].fields)


def _allowed_options(kind: str, name: str) -> tuple[str, ...]:
    if kind == "report":
        return ("deadline", "thread", "cancel_on_close", "outgoing")
    if name in ("lines", "tap", "raw_line"):
        # These wait for the client's lines; in a pool, a few slow clients would take all threads.
        return tuple(option for option in _OPTIONS if option != "thread")
    return _OPTIONS


def _positive(name: str, value: int) -> int:
    if isinstance(value, int) and value > 0:
        return value
    raise misuse(f"{name}={value!r} is not a positive whole number")
