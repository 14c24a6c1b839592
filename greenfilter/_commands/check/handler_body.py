"""Handlers that cannot do what they are registered for, read from their source."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

from ..._filter.app import Filter
from ..._filter.context import Context
from ..._filter.handlers import Handler
from ...protocol import PHASES, Need
from .decisions import MAKERS, alternatives, maker_of, no_decision, what_is_wrong_with
from .problem import Problem
from .reads import Reads, Spot, read_handler
from .source import Source, Sources, parameters, plain_function
from .things import Api, Function
from .values import Values
from .waits import Waits

# Here smtpd has not begun a transaction, or has no notion of one.
_BEFORE_TX = frozenset(
    f"{kind}.{name}"
    for kind, names in {
        "filter": ("connect", "auth", "mail_from"),
        "report": ("link_connect", "link_greeting", "link_auth"),
    }.items()
    for name in names
)
_DATA_HOOKS = ("lines", "message", "tap")
# What these decide is kept until smtpd asks about the whole message.
_AT_COMMIT = frozenset({"proceed", "bypass", "reject", "disconnect"})
_NO_ITERATORS = (ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.JoinedStr)


def check_handlers(app: Filter) -> list[Problem]:
    """Look for what can be seen in the source of an app's handlers.

    Errors are what fails whenever it runs: fields that ``needs=`` does not name, decisions that
    the phase does not have or that nobody returns, generators where none is expected. Warnings
    are what holds up all sessions, and what is None at that time.
    """
    found: set[Problem] = set()
    for handler in app._registry.handlers():
        file = handler.where.rpartition(":")[0] if handler.where else ""
        sources = Sources(file) if file else None
        source = sources.of_file(file) if sources else None
        if sources is None or source is None:
            continue
        values = values_of(app, sources)
        function = _function(handler, source, values)
        if function is not None:
            found |= set(_Examined(app, handler, values, function).problems())
    return sorted(found)


def values_of(app: Filter, sources: Sources) -> Values:
    """Make what tells what the expressions of a filter stand for."""
    registry = app._registry
    session, message = registry.session_storage, registry.message_storage
    return Values(sources, session and session.create, message and message.create)


def _function(handler: Handler, source: Source, values: Values) -> Function | None:
    plain = inspect.unwrap(plain_function(handler.fn))
    node = source.find(plain)
    if node is None:
        return None
    bound = values.objects.what_is(handler.fn.__self__) if inspect.ismethod(handler.fn) else None
    function = Function(node, values.objects.around(source, node), bound)
    if inspect.isfunction(plain) and plain.__closure__:
        cells = zip(plain.__code__.co_freevars, plain.__closure__, strict=True)
        for name, cell in cells:
            try:
                function.scope.given.setdefault(name, values.objects.what_is(cell.cell_contents))
            except ValueError:
                continue  # not bound yet
    return function


class _Examined:
    """One handler.

    Args:
        app: its filter.
        handler: the handler.
        values: tells what expressions are.
        function: where its code is.
    """

    def __init__(self, app: Filter, handler: Handler, values: Values, function: Function) -> None:
        self._app = app
        self._handler = handler
        self._values = values
        self._function = function
        self._node = function.node
        names = parameters(function.node)[int(inspect.ismethod(handler.fn)) :]
        self._reads: Reads = read_handler(values, function, names[0] if names else None)

    def problems(self) -> Iterator[Problem]:
        """Find what is wrong."""
        if not hasattr(self._handler.fn, "__wrapped__"):  # else a decorator changes both
            yield from self._form()
            yield from self._decisions()
        yield from self._made()
        yield from self._needs()
        yield from self._fields()
        yield from self._transaction()
        for name, spot in self._reads.coroutines:
            yield self._at(spot, f"calls {name}, which is async: its body never runs", False)
        for called, text, is_error in Waits(self._values, self._handler).told(self._reads.calls):
            yield self._at(called.spot, text, is_error)

    def _at(self, spot: Spot, text: str, is_error: bool = True) -> Problem:
        return Problem(spot.file, spot.line, f"{self._handler.hook}: {text}", is_error)

    def _problem(self, line: int, text: str) -> Problem:
        return self._at(Spot(self._function.scope.source.file, line), text)

    def _form(self) -> Iterator[Problem]:
        handler, name = self._handler, self._handler.name
        is_generator = inspect.isgeneratorfunction(handler.fn)
        if is_generator and handler.hook not in ("lines", "filter.data_line"):
            yield self._problem(
                self._node.lineno,
                f"{name} is a generator, whose body never runs; return, not yield",
            )
        elif handler.hook == "lines" and not is_generator and self._gives_no_iterator():
            yield self._problem(
                self._node.lineno,
                f"{name} yields no lines, so that every message is answered by on_error; yield "
                "them, or use @app.tap to look at them only",
            )

    def _gives_no_iterator(self) -> bool:
        values = alternatives(self._reads.returns)
        return all(isinstance(value, _NO_ITERATORS) or self._kind(value) for value in values)

    def _kind(self, value: ast.expr) -> str:
        """Return the decision that a call makes; "" for other expressions."""
        return self._maker(value.func) if isinstance(value, ast.Call) else ""

    def _maker(self, node: ast.expr) -> str:
        scope = self._values.enter(self._function, None, None)
        value = self._values.of(node, scope)
        return maker_of(value.path) if isinstance(value, Api) and not value.called else ""

    def _decisions(self) -> Iterator[Problem]:
        legal, hook = self._legal(), self._handler.hook
        for value in alternatives(self._reads.returns):
            if kind := self._kind(value):
                if hook.startswith("report."):
                    text = f"returns {kind}, but a report cannot decide; use app.filter"
                    yield self._problem(value.lineno, text)
                elif kind not in legal and hook == "filter.data_line":
                    text = f"returns {kind}, but a line is kept, replaced or left out only; "
                    text += "decide in app.filter.commit"
                    yield self._problem(value.lineno, text)
                elif kind not in legal:
                    shown = ", ".join(sorted(legal - {"bypass"}))  # which says nothing of its own
                    text = f"{kind} is not legal here (legal: {shown})"
                    yield self._problem(value.lineno, text)
            elif legal and (hook != "lines" or inspect.isgeneratorfunction(self._handler.fn)):
                allowed = (bytes,) if hook == "message" else ()
                maker = self._maker(value) if isinstance(value, ast.Name | ast.Attribute) else ""
                if text := no_decision(value, maker, allowed):
                    yield self._problem(value.lineno, text)
        if hook in ("lines", "filter.data_line"):
            for value in self._reads.yields:
                if kind := self._kind(value):
                    text = f"yields {kind}, but lines are bytes"
                    text += "; return it instead" if hook == "lines" else ""
                    yield self._problem(value.lineno, text)

    def _legal(self) -> frozenset[str]:
        """Return what the handler may decide; nothing if it does not return decisions."""
        kind, _, name = self._handler.hook.partition(".")
        if kind == "filter":
            decisions = PHASES[name].decisions
            return decisions | {"bypass"} if decisions else decisions
        if kind == "message":
            return _AT_COMMIT | {"junk"}
        return _AT_COMMIT if kind in _DATA_HOOKS else frozenset()

    def _made(self) -> Iterator[Problem]:
        """Find decisions that cannot be made, and those that nobody returns."""
        for kind, node, spot in self._reads.made:
            if text := what_is_wrong_with(kind, node):
                yield self._at(spot, text)
        for kind, spot, why in self._reads.lost:
            if kind in MAKERS or self._legal():
                yield self._at(spot, why)

    def _needs(self) -> Iterator[Problem]:
        bits = self._app._registry.need_bits()
        for name, spot in [*self._reads.session, *self._reads.tx]:
            wanted = "USERNAME" if name == "authenticated" else name.upper()
            if wanted in Need.__members__ and not bits & Need[wanted].value:
                text = f"reads {name}, but needs= does not name Need.{wanted}"
                yield self._at(spot, text)

    def _fields(self) -> Iterator[Problem]:
        """Find fields that do not exist, as in ``ctx.reject``."""
        for name, spot in self._reads.ctx:
            if not hasattr(Context, name):
                hint = f"; write: from greenfilter import {name}" if name in MAKERS else ""
                yield self._at(spot, f"reads ctx.{name}, which is not there{hint}")

    def _transaction(self) -> Iterator[Problem]:
        if self._handler.hook not in _BEFORE_TX or self._reads.tests_tx:
            return
        for name, spot in self._reads.tx:
            text = f"reads ctx.tx.{name}, but ctx.tx is None: a transaction begins later"
            yield self._at(spot, text, False)
