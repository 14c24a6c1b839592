"""Handlers that cannot do what they are registered for, read from their source."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

from .._app import Filter
from .._handlers import Handler
from ..protocol import PHASES, Need
from ._blocking import blocking
from ._problem import Problem
from ._reads import Reads, read_handler
from ._source import FunctionNode, Source, parameters, plain_function

# Here smtpd has not begun a transaction, or has no notion of one.
_BEFORE_TX = frozenset(
    f"{kind}.{name}"
    for kind, names in {
        "filter": ("connect", "auth", "mail_from"),
        "report": ("link_connect", "link_greeting", "link_auth"),
    }.items()
    for name in names
)
_WITHOUT_THREAD = ("lines", "tap")
_DATA_HOOKS = ("lines", "message", "tap")
# What these decide is kept until smtpd asks about the whole message.
_AT_COMMIT = frozenset({"proceed", "reject", "disconnect"})
_NO_ITERATORS = (ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.JoinedStr)
_MAKERS = ("proceed", "junk", "reject", "disconnect", "rewrite", "report")


def check_handlers(app: Filter) -> list[Problem]:
    """Look for what can be seen in the source of an app's handlers.

    Errors are what fails whenever it runs: fields that ``needs=`` does not name, decisions that
    the phase does not have, generators where none is expected. Warnings are what holds up all
    sessions, and what is None at that time.
    """
    sources: dict[str, Source | None] = {}
    found: set[Problem] = set()
    for handler in app.handlers():
        file = handler.where.rpartition(":")[0] if handler.where else ""
        if file not in sources:
            sources[file] = _source(file)
        source = sources[file]
        node = source.find(inspect.unwrap(plain_function(handler.fn))) if source else None
        if source is not None and node is not None:
            found |= set(_Examined(app, handler, source, node).problems())
    return sorted(found)


def _source(file: str) -> Source | None:
    try:
        return Source(file)
    except (OSError, SyntaxError, ValueError):
        return None  # made by a program, as in an interactive session


class _Examined:
    """One handler.

    Args:
        app: its filter.
        handler: the handler.
        source: its file.
        node: its function in there.
    """

    def __init__(self, app: Filter, handler: Handler, source: Source, node: FunctionNode) -> None:
        self._app = app
        self._handler = handler
        self._source = source
        self._node = node
        names = parameters(node)[int(inspect.ismethod(handler.fn)) :]
        self._reads: Reads = read_handler(source, node, names[0] if names else None)

    def problems(self) -> Iterator[Problem]:
        """Find what is wrong."""
        if not hasattr(self._handler.fn, "__wrapped__"):  # else a decorator changes both
            yield from self._form()
            yield from self._decisions()
        yield from self._needs()
        yield from self._transaction()
        yield from self._blocking()

    def _problem(self, line: int, text: str, is_error: bool = True) -> Problem:
        return Problem(self._source.file, line, f"{self._handler.hook}: {text}", is_error)

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
        values = _alternatives(self._reads.returns)
        return all(isinstance(value, _NO_ITERATORS) or self._is_decision(value) for value in values)

    def _is_decision(self, value: ast.expr) -> bool:
        dotted = self._source.dotted(value.func) if isinstance(value, ast.Call) else None
        package, _, kind = (dotted or "").rpartition(".")
        return package == "greenfilter" and kind in _MAKERS

    def _decisions(self) -> Iterator[Problem]:
        legal = self._legal()
        for value in _alternatives(self._reads.returns):
            if isinstance(value, ast.Constant):
                wrong = value.value is not None and self._handler.hook.startswith("filter.")
                if wrong and legal:
                    text = f"returns {value.value!r}, which is no decision"
                    yield self._problem(value.lineno, text)
            elif isinstance(value, ast.Call):
                package, _, kind = (self._source.dotted(value.func) or "").rpartition(".")
                if package != "greenfilter" or kind not in _MAKERS or kind in legal:
                    continue
                if legal:
                    text = f"{kind} is not legal here (legal: {', '.join(sorted(legal))})"
                    yield self._problem(value.lineno, text)
                elif self._handler.hook.startswith("report."):
                    text = f"returns {kind}, but a report cannot decide; use app.filter"
                    yield self._problem(value.lineno, text)

    def _legal(self) -> frozenset[str]:
        """What the handler may decide; nothing where a decision is not what it returns."""
        kind, _, name = self._handler.hook.partition(".")
        if kind == "filter":
            return PHASES[name].decisions
        return _AT_COMMIT if kind in _DATA_HOOKS else frozenset()

    def _needs(self) -> Iterator[Problem]:
        bits = self._app.need_bits()
        for name, line in [*self._reads.session, *self._reads.tx]:
            wanted = "USERNAME" if name == "authenticated" else name.upper()
            if wanted in Need.__members__ and not bits & Need[wanted].value:
                yield self._problem(line, f"reads {name}, but needs= does not name Need.{wanted}")

    def _transaction(self) -> Iterator[Problem]:
        if self._handler.hook not in _BEFORE_TX or self._reads.tests_tx:
            return
        for name, line in self._reads.tx:
            yield self._problem(
                line, f"reads ctx.tx.{name}, but ctx.tx is None: a transaction begins later", False
            )

    def _blocking(self) -> Iterator[Problem]:
        for name, line in self._reads.coroutines:
            text = f"calls {name}, which is async: its body never runs"
            yield self._problem(line, text, False)
        for dotted, line in self._reads.calls:
            if self._handler.thread:
                if dotted in ("gevent.spawn", "gevent.spawn_later", "gevent.Greenlet.spawn"):
                    text = f"{dotted} in a thread of the pool: the greenlet may never run there"
                    yield self._problem(line, text, False)
            elif reason := blocking(dotted):
                yield self._problem(
                    line, f"{dotted} {reason}, and holds up all sessions; {self._remedy()}", False
                )

    def _remedy(self) -> str:
        if self._handler.hook in _WITHOUT_THREAD:
            return "use @app.message(thread=True) instead"
        return "register with thread=True"


def _alternatives(values: list[ast.expr]) -> Iterator[ast.expr]:
    """The values, with both sides of ``a if b else c`` and of ``a or b``."""
    for value in values:
        if isinstance(value, ast.IfExp):
            yield from _alternatives([value.body, value.orelse])
        elif isinstance(value, ast.BoolOp):
            yield from _alternatives(value.values[-1:])
        else:
            yield value
