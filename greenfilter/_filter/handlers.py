"""A handler: one function of the filter's author, and the options it was registered with."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from .._process.mark import number_of
from .._process.python import OWN_FILES
from ..errors import RegistrationError
from ..protocol import EVENTS, JUNK, PHASES, PROCEED, TEMPFAIL, Decision, Phase

Policy = str | Decision
_NO_ROOM = re.compile("'(LiveSession|Session|Transaction|Context)' object has no attribute")
_POLICIES = {"tempfail": TEMPFAIL, "proceed": PROCEED, "junk": JUNK}


def locate(fn: object) -> str | None:
    """Return ``file:line`` of a function, or None for what has no code of its own."""
    code = getattr(inspect.unwrap(fn) if callable(fn) else fn, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else None


def make_error(text: str, at: str | None = None) -> RegistrationError:
    """Make the error that names the handler, or else the line that calls into greenfilter."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OWN_FILES):
        frame = frame.f_back
    return RegistrationError(text, at or f"{frame.f_code.co_filename}:{frame.f_lineno}")


def parse_policy(on_error: Policy, phase: Phase | None, at: str | None) -> Decision:
    """Return the decision that answers when a handler cannot.

    Raises:
        RegistrationError: it is not a policy, or it is not legal at this phase.
    """
    if isinstance(on_error, str) and on_error in _POLICIES:
        decision = _POLICIES[on_error]
    elif isinstance(on_error, Decision):
        decision = on_error
    else:
        names = ", ".join(map(repr, _POLICIES))
        raise make_error(f"on_error={on_error!r} is not one of {names}, nor a decision", at)
    if phase is not None and decision.kind not in phase.decisions:
        raise make_error(f"on_error={on_error!r} is not legal at {phase.wire}", at)
    return decision


def parse_deadline(deadline: float, at: str | None) -> float:
    """Check a deadline given as an option.

    Raises:
        RegistrationError: it is not a positive number of seconds.
    """
    if isinstance(deadline, (int, float)) and 0 < deadline < 1e9:
        return float(deadline)
    raise make_error(f"deadline={deadline!r} is not a positive number of seconds", at)


def say_where_to_keep(error: AttributeError) -> None:
    """Add a hint to the error of ``ctx.session.mine = 1``: where such an object belongs.

    Sessions and transactions have slots only, so no check slows down their attributes.
    """
    found = _NO_ROOM.match(str(error))
    if found is None:
        return
    whose = "tx" if found[1] == "Transaction" else "session"
    register = "local_message" if whose == "tx" else "local_session"
    hint = f"; for an object of your own: app.{register}(dict), then ctx.{whose}.local"
    if not str(error).endswith(hint):
        error.args = (f"{error}{hint}",)


class Handler:
    """A registered function.

    Attributes:
        fn: the plain function.
        hook: as logs and errors name it: ``filter.connect``, ``report.tx_rcpt``, ``lines`` ...
        deadline: seconds that it may take.
        on_error: the decision that answers when it fails or passes its deadline.
        thread: run it in the thread pool.
        cancel_on_close: end it when the client leaves.
        explicit: names of the options that it was registered with; the others have the
            filter's defaults.
        where: ``file:line``, or None.
        owner: name of the chain member that it belongs to, else "".
        report: the number of the report that it handles, else 0 (``_process/mark.py``).
    """

    __slots__ = (
        "cancel_on_close",
        "deadline",
        "explicit",
        "fn",
        "hook",
        "on_error",
        "owner",
        "report",
        "thread",
        "where",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        hook: str,
        parameters: int,
        *,
        deadline: float,
        on_error: Decision,
        thread: bool,
        cancel_on_close: bool,
        explicit: frozenset[str] = frozenset(),
    ) -> None:
        self.fn = fn
        self.hook = hook
        self.deadline = deadline
        self.on_error = on_error
        self.thread = thread
        self.cancel_on_close = cancel_on_close
        self.explicit = explicit
        self.where = locate(fn)
        self.owner = ""
        self.report = number_of(hook)
        check_parameters(fn, parameters, hook)

    @property
    def name(self) -> str:
        """Name of the function, as logs show it, with its member if it is in a chain."""
        name = getattr(self.fn, "__name__", None) or repr(self.fn)
        return f"{self.owner}: {name}" if self.owner else name

    def __repr__(self) -> str:
        return f"{self.name} ({self.hook}, {self.where or 'built in'})"


def check_parameters(fn: Callable[..., Any], count: int, hook: str) -> None:
    """Raise RegistrationError unless ``fn`` can be called with ``count`` positional arguments."""
    if not callable(fn):
        raise make_error(f"{hook} takes a function, not {fn!r}")
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise make_error(
            f"{hook}: {getattr(fn, '__name__', fn)} is async; write plain, blocking code instead",
            locate(fn),
        )
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return  # a builtin without a signature
    try:
        signature.bind(*range(count))
    except TypeError as error:
        parameters = describe_parameters(hook, count)
        raise make_error(
            f"{hook} calls its handler with {count} arguments ({parameters}), "
            f"but {getattr(fn, '__name__', fn)}{signature} does not take them: {error}",
            locate(fn),
        ) from None


def describe_parameters(hook: str, count: int) -> str:
    """Return the last ``count`` parameters that a hook's handler takes: ``ctx, rdns, address``."""
    kind, _, name = hook.partition(".")
    special = {
        "lines": ["lines"],
        "tap": ["lines"],
        "message": ["message"],
        "on_config": ["config"],
        "local_session": [],
        "local_message": [],
    }
    if kind == "filter" and name in PHASES:
        names = [field.name for field in PHASES[name].fields]
    elif kind == "report" and name in EVENTS:
        names = [field.name for field in EVENTS[name].fields]
    else:
        names = special.get(kind, ["object"])
    names = ["ctx", *names]
    return ", ".join(names[len(names) - count :])


def takes_ctx(fn: Callable[..., Any], arguments: int) -> bool:
    """Return whether a local-storage hook takes ``ctx`` before its other arguments.

    ``dict`` and ``lambda: []`` need nothing to make an object; ``def create(ctx)`` does.
    """
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return False
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(required) > arguments
