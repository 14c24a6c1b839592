"""The class Filter: its decorators register handlers. No I/O, and nothing runs here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, overload

from .._process.python import make_command
from ..errors import UsageError
from ..protocol import EVENTS, PHASES, Config, Need
from .handlers import Policy, make_error, parse_deadline, parse_policy
from .hook_docs import make_hook_doc
from .registry import Registry, allowed_options

F = TypeVar("F", bound=Callable[..., Any])


class Loaded(SystemExit):
    """Raised by :meth:`Filter.run` while greenfilter loads the file, to end its import.

    Args:
        app: the filter that the file runs.

    Attributes:
        applies: this process is greenfilter's own, not a script that starts it. A callback that
            calls run() must not replace the process either.
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
        self.__doc__ = make_hook_doc(kind, name, allowed_options(kind, name))

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
            self._app._registry.add(self._kind, self._name, fn, options)
            return fn

        def decorate(fn: F) -> F:
            self._app._registry.add(self._kind, self._name, fn, options)
            return fn

        return decorate


class _Hooks:
    """``app.filter`` or ``app.report``: one decorator for each name of the catalogue."""

    def __init__(self, app: Filter, kind: str, names: dict[str, Any]) -> None:
        self._app = app
        self._kind = kind
        self._names = names

    def __getattr__(self, name: str) -> _Hook:
        if name.startswith("__"):  # Python asks every object for these
            raise AttributeError(name)
        if name not in self._names:
            known = ", ".join(self._names)
            raise make_error(f"app.{self._kind}.{name} does not exist; there are: {known}")
        return _Hook(self._app, self._kind, name)

    def __dir__(self) -> list[str]:
        return list(self._names)


class Filter:
    """A filter: what its author registered, and its limits.

    Args:
        name: for logs.
        deadline: seconds that a handler may take, unless it says otherwise itself. Then
            ``on_error`` answers, and the handler gets :class:`~greenfilter.HandlerTimeout`.
        on_error: what answers when a handler raises, returns something that is not a decision, or
            is too late: ``"tempfail"`` (451 4.3.0), ``"proceed"``, ``"junk"`` or a decision.
        needs: fields of session and transaction that handlers read. By default all of them; with
            less, smtpd sends fewer reports, and reading another field raises NeedError.
        threads: threads of the pool for ``thread=True``. Up to four times as many that hang are
            replaced; when there are more, the supervisor replaces the worker.
        auto_thread: run a handler that has kept the loop three times, so that all sessions waited
            for it, in a thread from then on. All such handlers share one, one call at a time.
        max_concurrency: handlers running at once; beyond it smtpd waits.
        max_message_bytes: a longer message is refused with 451 at commit, if the filter has to
            keep it.
        max_sessions: sessions held at once; beyond it the oldest one is dropped, and its message
            is refused with a 4xx or 5xx at commit.

    Attributes:
        config: what smtpd said of itself; filled in when the filter runs. Each argument is an
            attribute too, which may be changed until then.
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
        self.deadline = parse_deadline(deadline, None)
        parse_policy(on_error, None, None)
        self.on_error = on_error
        self.threads = _positive("threads", threads)
        self.auto_thread = bool(auto_thread)
        self.max_concurrency = _positive("max_concurrency", max_concurrency)
        self.max_message_bytes = _positive("max_message_bytes", max_message_bytes)
        self.max_sessions = _positive("max_sessions", max_sessions)
        if needs is not None and not isinstance(needs, Need):
            raise make_error(f"needs={needs!r} is not a Need; write: needs=Need.RDNS | Need.SRC")
        self.needs = needs
        self.config = Config()
        self._stock: tuple[str, list[str]] | None = None  # its name and options, if it is one
        self.filter = _Hooks(self, "filter", PHASES)
        self.report = _Hooks(self, "report", EVENTS)
        self.lines = _Hook(self, "data", "lines")
        self.message = _Hook(self, "data", "message")
        self.tap = _Hook(self, "data", "tap")
        self._raw_line = _Hook(self, "data", "raw_line")  # for greenfilter.osmtpd
        self._registry = Registry(self)

    def __repr__(self) -> str:
        return f"Filter({self.name!r})"

    def local_session(
        self, create: Callable[..., Any], delete: Callable[..., Any] | None = None
    ) -> None:
        """Keep an object of your own for every session: ``ctx.session.local``.

        Args:
            create: makes the object when the session begins; called with ctx if it takes a
                parameter.
            delete: called with (ctx, object), or (object) if it takes one parameter, exactly once
                when the session ends, however that happens.
        """
        self._registry.add_session_storage(create, delete)

    def local_message(
        self, create: Callable[..., Any], delete: Callable[..., Any] | None = None
    ) -> None:
        """Keep an object of your own for every transaction: ``ctx.tx.local``.

        Arguments as for :meth:`local_session`.
        """
        self._registry.add_message_storage(create, delete)

    def on_config(self, fn: F) -> F:
        """Call a function with :attr:`config` once smtpd has sent it, before mail is served.

        It may block; smtpd does not serve mail before it returns. If it raises, the error is
        logged and the filter goes on.
        """
        self._registry.add_on_config(fn)
        return fn

    def run(self) -> NoReturn:
        """Run this file under ``greenfilter run``, in place of this process. For ``__main__``.

        The file is started again, so that blocking calls can be made cooperative before it is
        imported, and nothing that it prints reaches smtpd. What a script writes to standard
        output before this call does reach smtpd; ``greenfilter run`` in smtpd.conf, or in the
        script's first line, is safe from the start.

        Raises:
            UsageError: it is called neither by a script nor while greenfilter loads a file.
        """
        if Loaded.applies:
            raise Loaded(self)
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        if not script or not os.path.exists(script):
            raise UsageError("app.run() is for the end of a script; or use: greenfilter run FILTER")
        script = os.path.abspath(script)
        os.execv(sys.executable, make_command("greenfilter", "run", script, *sys.argv[1:]))


def _positive(name: str, value: int) -> int:
    if isinstance(value, int) and value > 0:
        return value
    raise make_error(f"{name}={value!r} is not a positive whole number")
