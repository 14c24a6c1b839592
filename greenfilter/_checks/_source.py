"""The source of handlers, as far as it can be read without running it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Source:
    """One file.

    Args:
        file: its path.

    Attributes:
        names: what an imported name stands for, with dots; a name that is also something else in
            the file is left out.
        functions: those of a name that only one function of the file has.

    Raises:
        OSError: it cannot be read.
        SyntaxError: it is no Python.
    """

    def __init__(self, file: str) -> None:
        with open(file, "rb") as opened:
            self._tree = ast.parse(opened.read())
        self.file = file
        self.names: dict[str, str] = {}
        self.functions: dict[str, FunctionNode] = {}
        ambiguous = set()
        for node in ast.walk(self._tree):
            for name, dotted in _imported(node):
                if self.names.setdefault(name, dotted) != dotted:
                    ambiguous.add(name)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name in self.functions:
                    ambiguous.add(node.name)
                self.functions[node.name] = node
        for name in ambiguous | (self.names.keys() & self.functions.keys()):
            self.names.pop(name, None)
            self.functions.pop(name, None)

    def find(self, fn: Callable[..., Any]) -> FunctionNode | None:
        """Give the node of a function of this file; None where it cannot be told."""
        code = getattr(fn, "__code__", None)
        if code is None:
            return None
        found = [
            node
            for node in ast.walk(self._tree)
            if isinstance(node, FunctionNode)
            and _first_line(node) == code.co_firstlineno
            and getattr(node, "name", "<lambda>") == code.co_name
        ]
        return found[0] if len(found) == 1 else None

    def dotted(self, node: ast.expr) -> str | None:
        """Give the full name of an imported thing: ``dkim.sign`` for ``sign`` or ``dkim.sign``."""
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return f"{base}.{node.attr}" if base else None
        return self.names.get(node.id) if isinstance(node, ast.Name) else None

    def made_by(self) -> dict[str, str]:
        """Give the variables of the file that hold what an imported thing returned, and its name.

        For ``db = psycopg2.connect(...)``: ``{"db": "psycopg2.connect"}``.
        """
        made: dict[str, str] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                maker = self.dotted(node.value.func)
                for target in node.targets:
                    if maker and isinstance(target, ast.Name):
                        made[target.id] = maker
        return made


def _imported(node: ast.AST) -> list[tuple[str, str]]:
    if isinstance(node, ast.Import):
        return [
            (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
            for alias in node.names
        ]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [(alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names]
    return []


def _first_line(node: FunctionNode) -> int:
    decorators = getattr(node, "decorator_list", [])
    return decorators[0].lineno if decorators else node.lineno


def parameters(node: FunctionNode) -> list[str]:
    """Names of the positional parameters."""
    return [arg.arg for arg in [*node.args.posonlyargs, *node.args.args]]


def plain_function(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function below a bound method."""
    return fn.__func__ if inspect.ismethod(fn) else fn
