"""Texts and numbers that can be seen without running the filter."""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING, Any

from .things import Api, Instance, Module, Scope

if TYPE_CHECKING:
    from .values import Values

_MAX_DEPTH = 8
_Nodes = list[tuple[ast.expr, Scope]]


class Literals:
    """Tells what expressions hold.

    Args:
        values: tells what they stand for.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self._depth = 0

    def text(self, node: ast.AST, scope: Scope) -> str:
        """Return the text that an expression begins with, as far as it can be seen."""
        if self._depth > _MAX_DEPTH:  # a variable that is made from itself
            return ""
        self._depth += 1
        try:
            return self._text(node, scope)
        finally:
            self._depth -= 1

    def _text(self, node: ast.AST, scope: Scope) -> str:
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr():
                return "".join(self.text(part, scope) for part in node.values[:1])
            case ast.FormattedValue():
                return self.text(node.value, scope)
            case ast.BinOp():
                return self.text(node.left, scope)
            case ast.BoolOp():
                return next(filter(None, (self.text(v, scope) for v in node.values)), "")
            case ast.IfExp():
                return self.text(node.body, scope) or self.text(node.orelse, scope)
            case ast.Call(func=ast.Attribute(attr="format", value=template)):
                return self.text(template, scope)
            case ast.Call():
                # os.environ.get("DB", "postgresql://..."), URL.create("postgresql", ...)
                parts = [*node.args, *(k.value for k in node.keywords if k.arg == "drivername")]
                texts = [text for part in parts if (text := self.text(part, scope))]
                return next((text for text in texts if "://" in text), "".join(texts[:1]))
            case ast.Name() | ast.Attribute():
                real, nodes = self._plain(node, scope)
                if isinstance(real, str):
                    return real
                return next(filter(None, (self.text(n, s) for n, s in nodes)), "")
        return ""

    def number(self, node: ast.AST, scope: Scope) -> int | None:
        """Return the whole number that an expression stands for."""
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name() | ast.Attribute():
                real, nodes = self._plain(node, scope)
                if isinstance(real, int):
                    return real
                numbers = [n.value for n, _ in nodes if isinstance(n, ast.Constant)]
                return next((number for number in numbers if isinstance(number, int)), None)
        return None

    def _plain(self, node: ast.Name | ast.Attribute, scope: Scope) -> tuple[Any, _Nodes]:
        """Return the object that a name holds, else the expressions that it is bound to."""
        if isinstance(node, ast.Attribute):
            base = self._values.of(node.value, scope)
            if isinstance(base, Module):
                return self._plain(ast.Name(node.attr), self._values.objects.module(base.source))
            if isinstance(base, Instance):
                return inspect.getattr_static(base.real, node.attr, None), []
            if not isinstance(base, Api) or base.real is None:
                return None, []
            return inspect.getattr_static(base.real, node.attr, None), []
        while scope.node is not None and scope.parent is not None:
            bindings = scope.source.names_in(scope.node).bindings
            if node.id in bindings:
                return None, [(b, scope) for b in bindings[node.id] if isinstance(b, ast.expr)]
            scope = scope.parent
        module = scope.source.module
        if module is not None and hasattr(module, node.id):
            return getattr(module, node.id), []
        bindings = scope.source.names.bindings
        return None, [(b, scope) for b in bindings.get(node.id, []) if isinstance(b, ast.expr)]
