"""What a handler does with its context, and what it calls, read from its source."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from ._source import FunctionNode, Source, parameters

_MAX_DEPTH = 20


@dataclass(slots=True)
class Reads:
    """What was found in a handler and in the functions of its file that it calls.

    Args:
        session: ``(field, line)`` of what is read of ctx.session.
        tx: the same of ctx.tx.
        tests_tx: somebody looks whether there is a transaction at all.
        calls: ``(name with dots, line)`` of what is called.
        coroutines: ``(name, line)`` of calls of async functions that nobody awaits.
        returns: what the handler itself returns.
    """

    session: list[tuple[str, int]] = field(default_factory=list)
    tx: list[tuple[str, int]] = field(default_factory=list)
    tests_tx: bool = False
    calls: list[tuple[str, int]] = field(default_factory=list)
    coroutines: list[tuple[str, int]] = field(default_factory=list)
    returns: list[ast.expr] = field(default_factory=list)


def read_handler(source: Source, node: FunctionNode, ctx: str | None) -> Reads:
    """Read a handler.

    Args:
        source: its file.
        node: the function.
        ctx: name of its parameter for the context.
    """
    reads = Reads()
    kinds = {ctx: "ctx"} if ctx else {}
    _Reader(source, reads, kinds, source.made_by(), set(), 0).read(node)
    return reads


class _Reader(ast.NodeVisitor):
    """Goes through one function.

    Args:
        source: its file.
        reads: where to put what is found.
        kinds: which variables hold ``ctx``, ``session`` or ``tx``.
        made: which variables hold what an imported thing returned.
        seen: functions that were read with the same arguments.
        depth: how many calls away from the handler.
    """

    def __init__(
        self,
        source: Source,
        reads: Reads,
        kinds: dict[str, str],
        made: dict[str, str],
        seen: set[tuple[int, tuple[tuple[str, str], ...]]],
        depth: int,
    ) -> None:
        self._source = source
        self._reads = reads
        self._kinds = kinds
        self._made = made
        self._seen = seen
        self._depth = depth
        self._parameters: set[str] = set()

    def read(self, node: FunctionNode) -> None:
        key = (id(node), tuple(sorted(self._kinds.items())))
        if key in self._seen or self._depth > _MAX_DEPTH:
            return
        self._seen.add(key)
        self._parameters = set(parameters(node))
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        if isinstance(node, ast.Lambda) and self._depth == 0:
            self._reads.returns.append(node.body)
        for statement in body:
            self.visit(statement)

    def _kind(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self._kinds.get(node.id, "")
        if isinstance(node, ast.Attribute) and self._kind(node.value) == "ctx":
            return node.attr if node.attr in ("session", "tx") else ""
        return ""

    # Functions inside are read when they are called.

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Nothing yet."""

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Nothing yet."""

    def visit_Return(self, node: ast.Return) -> None:
        """What the handler decides."""
        if self._depth == 0 and node.value is not None:
            self._reads.returns.append(node.value)
        self._lost(node.value)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """A value that nobody takes."""
        self._lost(node.value)
        self.generic_visit(node)

    def _lost(self, node: ast.expr | None) -> None:
        """Note a call of an async function whose coroutine nobody awaits."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called = self._source.functions.get(node.func.id)
            if isinstance(called, ast.AsyncFunctionDef):
                self._reads.coroutines.append((called.name, node.lineno))

    def visit_Assign(self, node: ast.Assign) -> None:
        """A variable may take the place of ctx.session."""
        kind = self._kind(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._kinds.pop(target.id, None)
                if kind:
                    self._kinds[target.id] = kind
        if kind != "tx":  # which is no test of it
            self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """A field is read."""
        kind = self._kind(node.value)
        if kind == "session":
            self._reads.session.append((node.attr, node.lineno))
        elif kind == "tx":
            self._reads.tx.append((node.attr, node.lineno))
            return
        elif self._kind(node) == "tx":
            self._reads.tests_tx = True
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        """The transaction itself is looked at."""
        if self._kinds.get(node.id) == "tx":
            self._reads.tests_tx = True

    def visit_Call(self, node: ast.Call) -> None:
        """Something is called."""
        if isinstance(node.func, ast.Name) and node.func.id in self._source.functions:
            self._follow(node, self._source.functions[node.func.id])
        elif dotted := self._called(node.func):
            self._reads.calls.append((dotted, node.lineno))
        self.generic_visit(node)

    def _called(self, func: ast.expr) -> str | None:
        """``dkim.sign``, or what made the object: psycopg2.connect for ``db.cursor``."""
        root = func
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name) or root.id in self._parameters:
            return None
        made = self._made.get(root.id) if isinstance(func, ast.Attribute) else None
        return self._source.dotted(func) or made

    def _follow(self, call: ast.Call, callee: FunctionNode) -> None:
        given = list(zip(parameters(callee), call.args, strict=False))
        given += [(keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg]
        kinds = {name: kind for name, value in given if (kind := self._kind(value))}
        _Reader(self._source, self._reads, kinds, self._made, self._seen, self._depth + 1).read(
            callee
        )
