"""What a handler does with its context, and what it calls, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from .decisions import MAKERS, maker_of
from .source import FUNCTIONS, FunctionNode
from .things import Api, Class, Context, Function, Instance, Scope, Value, identity
from .values import Values

_MAX_DEPTH = 20
_MAX_TIMES = 8  # that a function is read, with different arguments
_Seen = dict[FunctionNode, set[object]]
# What is handed to these runs elsewhere.
_ELSEWHERE = (
    "concurrent.futures.ProcessPoolExecutor",
    "gevent.get_hub",
    "gevent.hub.get_hub",
    "gevent.threadpool",
    "multiprocessing",
    "os.register_at_fork",
    "atexit",
)


class Spot(NamedTuple):
    """A place."""

    file: str
    line: int


class Called(NamedTuple):
    """A call of something of a library.

    Args:
        api: what is called.
        node: the call, or what else makes it run.
        scope: where.
        spot: the place.
    """

    api: Api
    node: ast.AST
    scope: Scope
    spot: Spot


class Made(NamedTuple):
    """A call that makes a decision, and where; ``kind`` says which one."""

    kind: str
    node: ast.Call
    spot: Spot


class Lost(NamedTuple):
    """A decision that nobody returns: its kind, where, and why it is lost."""

    kind: str
    spot: Spot
    why: str


@dataclass(slots=True)
class Reads:
    """What was found in a handler and in the functions of the filter that it calls.

    Args:
        session: ``(field, place)`` of what is read of ctx.session.
        tx: the same of ctx.tx.
        ctx: the same of ctx.
        tests_tx: somebody looks whether there is a transaction at all.
        calls: what is called.
        coroutines: ``(name, place)`` of calls of async functions that nobody awaits.
        returns: what the handler itself returns.
        yields: what it yields.
        made: decisions that are made.
        lost: those that come to nothing.
    """

    session: list[tuple[str, Spot]] = field(default_factory=list)
    tx: list[tuple[str, Spot]] = field(default_factory=list)
    ctx: list[tuple[str, Spot]] = field(default_factory=list)
    tests_tx: bool = False
    calls: list[Called] = field(default_factory=list)
    coroutines: list[tuple[str, Spot]] = field(default_factory=list)
    returns: list[ast.expr] = field(default_factory=list)
    yields: list[ast.expr] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)


def read_handler(values: Values, function: Function, ctx: str | None) -> Reads:
    """Read a handler.

    Args:
        values: tells what its expressions are.
        function: the handler.
        ctx: name of its parameter for the context.
    """
    reads = Reads()
    scope = values.enter(function, None, None)
    if ctx:
        scope.given[ctx] = Context("ctx")
    _Reader(values, reads, scope, {}, 0).read(function)
    return reads


def read_top(values: Values, scope: Scope) -> Reads:
    """Read what a module does when it is imported."""
    reads = Reads()
    reader = _Reader(values, reads, scope, {}, 0)
    for statement in scope.source.tree.body:
        reader.visit(statement)
    return reads


class _Reader(ast.NodeVisitor):
    """Goes through one function, or the statements of a module.

    Args:
        values: tells what expressions are.
        reads: where to put what is found.
        scope: the function, with what its parameters hold.
        seen: functions that were read with the same arguments.
        depth: how many calls away from the handler.
    """

    def __init__(self, values: Values, reads: Reads, scope: Scope, seen: _Seen, depth: int) -> None:
        self._values = values
        self._reads = reads
        self._scope = scope
        self._seen = seen
        self._depth = depth

    def read(self, function: Function) -> None:
        """Read its body, unless that was done."""
        key = tuple((name, identity(value)) for name, value in self._scope.given.items())
        seen = self._seen.setdefault(function.node, set())
        if key in seen or len(seen) >= _MAX_TIMES or self._depth > _MAX_DEPTH:
            return
        seen.add(key)
        node = function.node
        if isinstance(node, ast.Lambda):
            if self._depth == 0:
                self._reads.returns.append(node.body)
            self.visit(node.body)
            return
        for statement in node.body:
            self.visit(statement)
        self._unused(node)

    def _of(self, node: ast.AST) -> Value | None:
        return self._values.of(node, self._scope)

    def _spot(self, node: ast.AST) -> Spot:
        return Spot(self._scope.source.file, getattr(node, "lineno", 1))

    # Functions inside are read when they are called.

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Skip the body: it runs when it is called."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Skip the body: it runs when it is called."""

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Skip the body: it runs when it is called."""

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Skip the body: it runs when it is called."""

    # Decisions

    def visit_Return(self, node: ast.Return) -> None:
        """Note what the handler decides."""
        if self._depth == 0 and node.value is not None:
            self._reads.returns.append(node.value)
        self._coroutine(node.value)
        self.generic_visit(node)

    def visit_Yield(self, node: ast.Yield) -> None:
        """Note what the handler yields."""
        if self._depth == 0 and node.value is not None:
            self._reads.yields.append(node.value)
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Skip what is raised: a decision is not an exception."""
        if node.exc is not None and (kind := self._decision(node.exc)):
            why = f"raises {kind}, which is not an exception; return it"
            self._reads.lost.append(Lost(kind, self._spot(node), why))
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Note a value that nobody takes."""
        self._coroutine(node.value)
        value = node.value
        if kind := self._decision(value):
            written = ast.unparse(value)
            why = f"makes a {kind} and does not return it; write: return {_short(written)}"
            self._reads.lost.append(Lost(kind, self._spot(node), why))
        elif isinstance(value, ast.Call) and isinstance(self._of(value.func), Function):
            result = self._of(value)
            if isinstance(result, Api) and (kind := maker_of(result.path)):
                name = _short(ast.unparse(value.func))
                why = f"does not return the {kind} that {name} returns; write: return {name}(...)"
                self._reads.lost.append(Lost(kind, self._spot(node), why))
        self.generic_visit(node)

    def _decision(self, node: ast.expr) -> str:
        """Return the decision that an expression makes, or is a function for; "" for others."""
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr == "defer":
                base = self._of(node.func.value)
                return "defer" if base == Context("ctx") else ""
            node = node.func
        value = self._of(node)
        return maker_of(value.path) if isinstance(value, Api) and not value.called else ""

    def _unused(self, function: ast.AST) -> None:
        """Return the decisions that are put into a variable that nobody reads."""
        read = {
            node.id
            for node in ast.walk(function)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        for node in _statements(function):
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
                continue
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            kind = self._decision(node.value)
            if kind in MAKERS and len(names) == len(node.targets) and not read & set(names):
                why = f"makes a {kind} and does not return it; write: return {names[0]}"
                self._reads.lost.append(Lost(kind, self._spot(node), why))

    def _coroutine(self, node: ast.expr | None) -> None:
        """Note a call of an async function whose coroutine nobody awaits."""
        if isinstance(node, ast.Call):
            called = self._of(node.func)
            if isinstance(called, Function) and isinstance(called.node, ast.AsyncFunctionDef):
                self._reads.coroutines.append((called.node.name, self._spot(node)))

    # The context

    def visit_Assign(self, node: ast.Assign) -> None:
        """Note a variable that takes the place of ctx.tx, which is not a test of it."""
        if self._of(node.value) != Context("tx"):
            self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Note a field that is read."""
        base = self._of(node.value)
        if base == Context("session"):
            self._reads.session.append((node.attr, self._spot(node)))
        elif base == Context("tx"):
            self._reads.tx.append((node.attr, self._spot(node)))
            return
        elif base == Context("ctx"):
            self._reads.ctx.append((node.attr, self._spot(node)))
            if node.attr == "tx":
                self._reads.tests_tx = True
        elif isinstance(base, Instance):
            self._property(base, node)
        self.generic_visit(node)

    def _property(self, base: Instance, node: ast.Attribute) -> None:
        """Visit the code that a property runs."""
        for statement in base.made_from.node.body:
            if (
                isinstance(statement, FUNCTIONS[:2])
                and statement.name == node.attr
                and statement.decorator_list
            ):
                self._enter(Function(statement, base.made_from.scope, base), None)

    def visit_Name(self, node: ast.Name) -> None:
        """Note that the transaction itself is looked at."""
        if self._of(node) == Context("tx"):
            self._reads.tests_tx = True

    # Calls

    def visit_Call(self, node: ast.Call) -> None:
        """Visit what is called."""
        callee = self._of(node.func)
        if isinstance(callee, Api):
            self._library(callee, node)
        elif callee is not None:
            self._own(callee, node)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        """Visit what entering an object runs."""
        for item in node.items:
            value = self._of(item.context_expr)
            if isinstance(value, Instance):
                for name in ("__enter__", "__exit__"):
                    method = self._values.attribute(value, name)
                    if isinstance(method, Function):
                        self._enter(method, None)
            else:
                self._used(item.context_expr)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        """Visit what iterating over an object runs."""
        self._used(node.iter)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """Visit what taking an item runs."""
        self._used(node.value)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Visit a product of matrices, which is a call."""
        value = self._of(node) if isinstance(node.op, ast.MatMult) else None
        if isinstance(value, Api) and value.path.startswith("numpy"):
            api = Api("numpy.matmul", "numpy.matmul", size=value.size)
            self._reads.calls.append(Called(api, node, self._scope, self._spot(node)))
        self.generic_visit(node)

    def _used(self, node: ast.expr) -> None:
        value = self._of(node)
        if isinstance(value, Api) and value.called and not isinstance(node, ast.Call):
            self._reads.calls.append(Called(value, node, self._scope, self._spot(node)))

    def _library(self, api: Api, node: ast.Call) -> None:
        spot = self._spot(node)
        if kind := maker_of(api.path):
            if not api.called:
                self._reads.made.append(Made(kind, node, spot))
            return
        self._reads.calls.append(Called(api, node, self._scope, spot))
        made = self._of(node)
        if isinstance(made, Api) and made.path != api.path:  # a driver, say
            self._reads.calls.append(Called(made, node, self._scope, spot))
        if self._scope.node is not None and not api.path.startswith(_ELSEWHERE):
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                if isinstance(argument, ast.Name | ast.Attribute | ast.Lambda):
                    value = self._of(argument)
                    if isinstance(value, Function):
                        self._enter(value, None)

    def _own(self, callee: Value, node: ast.Call) -> None:
        if isinstance(callee, Class):
            made = self._of(node)
            init = self._values.attribute(callee, "__init__")
            if isinstance(init, Function):
                bound = made if isinstance(made, Instance) else None
                self._enter(Function(init.node, init.scope, bound), node)
        elif isinstance(callee, Instance):
            method = self._values.attribute(callee, "__call__")
            if isinstance(method, Function):
                self._enter(method, node)
        elif isinstance(callee, Function):
            self._enter(callee, node)

    def _enter(self, function: Function, call: ast.Call | None) -> None:
        scope = self._values.enter(function, call, self._scope)
        _Reader(self._values, self._reads, scope, self._seen, self._depth + 1).read(function)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _statements(function: ast.AST) -> Iterable[ast.AST]:
    """Return all nodes of a function but those of functions in it."""
    todo = list(ast.iter_child_nodes(function))
    for node in todo:
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            todo.extend(ast.iter_child_nodes(node))
