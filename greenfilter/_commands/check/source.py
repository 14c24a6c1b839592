"""The source of a filter and of its own modules, as far as it can be read without running it."""

from __future__ import annotations

import ast
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

from ..._process.python import OWN_FILES, is_stdlib

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import statement binds a name to.

    Args:
        module: its full name; where the import is relative, what follows the dots.
        attribute: what is taken from it, or "".
        level: how many dots are in front.
    """

    module: str
    attribute: str = ""
    level: int = 0


Binding = ast.AST | Imported


@dataclass(slots=True)
class Names:
    """What the names of a scope are bound to, in all places together.

    Args:
        bindings: by name. None stands for what nobody can tell.
        attributes: the same for ``name.attribute``, by both.
        shared: names that are declared global.
    """

    bindings: dict[str, list[Binding | None]] = field(default_factory=dict)
    attributes: dict[tuple[str, str], list[ast.AST]] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)


class Source:
    """One file.

    Args:
        file: its path.
        module: what was imported from it, if it was.

    Raises:
        OSError: it cannot be read.
        SyntaxError: it is not Python.
    """

    def __init__(self, file: str, module: ModuleType | None = None) -> None:
        with open(file, "rb") as opened:
            self.tree = ast.parse(opened.read())
        self.file = file
        self.module = module
        self.names = names_of(self.tree.body)
        self._names: dict[ast.AST, Names] = {}

    @cached_property
    def enclosing(self) -> dict[ast.AST, ast.AST | None]:
        """The function or class around each function and class."""
        found: dict[ast.AST, ast.AST | None] = {}
        todo: list[tuple[ast.AST, ast.AST | None]] = [(self.tree, None)]
        for node, around in todo:
            for child in ast.iter_child_nodes(node):
                inner = isinstance(child, (*FUNCTIONS, ast.ClassDef))
                if inner:
                    found[child] = around
                todo.append((child, child if inner else around))
        return found

    @cached_property
    def assigned_in_functions(self) -> dict[str, list[tuple[ast.AST, FunctionNode]]]:
        """Return what functions bind to the names that they declare global."""
        found: dict[str, list[tuple[ast.AST, FunctionNode]]] = {}
        for node in self.enclosing:
            if isinstance(node, FUNCTIONS):
                names = self.names_in(node)
                for name in names.shared:
                    for binding in names.bindings.get(name, []):
                        if isinstance(binding, ast.AST):
                            found.setdefault(name, []).append((binding, node))
        return found

    def names_in(self, node: FunctionNode | ast.ClassDef) -> Names:
        """Return what a function binds, its parameters apart, or a class."""
        if node not in self._names:
            body: Iterable[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else node.body
            self._names[node] = names_of(body)
        return self._names[node]

    def find(self, fn: Callable[..., Any]) -> FunctionNode | None:
        """Return the node of a function of this file; None if it cannot be told."""
        code = getattr(fn, "__code__", None)
        if code is None:
            return None
        found = [
            node
            for node in self.enclosing
            if isinstance(node, FUNCTIONS)
            and _first_line(node) == code.co_firstlineno
            and getattr(node, "name", "<lambda>") == code.co_name
        ]
        return found[0] if len(found) == 1 else None

    def find_class(self, name: str) -> ast.ClassDef | None:
        """Return the node of a class by its name; None if there are several of it."""
        found = [n for n in self.enclosing if isinstance(n, ast.ClassDef) and n.name == name]
        return found[0] if len(found) == 1 else None


class Sources:
    """The files that belong to a filter: not those of libraries, Python or greenfilter.

    Args:
        file: of the filter.
    """

    def __init__(self, file: str) -> None:
        self._directory = os.path.dirname(os.path.abspath(file))
        self._top = _library_of(os.path.abspath(file))
        self._found: dict[str, Source | None] = {}

    def of_file(self, file: str | None) -> Source | None:
        """Return the source of a file, if it is one of the filter's."""
        if not file or not os.path.isfile(file):
            return None
        file = os.path.abspath(file)
        if file not in self._found:
            self._found[file] = self._read(file) if self.is_own(file) else None
        return self._found[file]

    def of_module(self, name: str) -> Source | None:
        """Return the source of a module by its name, if it is one of the filter's."""
        module = sys.modules.get(name)
        if module is not None:
            return self.of_file(getattr(module, "__file__", None))
        path = os.path.join(self._directory, *name.split("."))
        for file in (f"{path}.py", os.path.join(path, "__init__.py")):
            if os.path.isfile(file):
                return self.of_file(file)
        return None

    def all(self) -> list[Source]:
        """Return those that were looked at so far, and all that were imported."""
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str):
                self.of_file(file)
        return [source for source in self._found.values() if source is not None]

    def is_own(self, file: str) -> bool:
        """Return whether a file is the filter's, not a library's."""
        if file.startswith((OWN_FILES, "<")):
            return False
        library = _library_of(file)
        return library is None or library == self._top

    @staticmethod
    def _read(file: str) -> Source | None:
        modules = [m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == file]
        try:
            return Source(file, modules[0] if modules else None)
        except (OSError, SyntaxError, ValueError):
            return None  # made by a program, or no Python


def _library_of(file: str) -> str | None:
    """Return the installed package or module that a file belongs to, if any."""
    words = file.split(os.path.sep)
    for name in ("site-packages", "dist-packages"):
        if name in words:
            return words[len(words) - words[::-1].index(name)]
    return "python" if is_stdlib(file) else None


def names_of(body: Iterable[ast.AST]) -> Names:
    """Find what statements bind, not looking into functions and classes."""
    collector = _Collector()
    for node in body:
        collector.visit(node)
    return collector.names


class _Collector(ast.NodeVisitor):
    def __init__(self) -> None:
        self.names = Names()

    def _add(self, name: str, binding: Binding | None) -> None:
        self.names.bindings.setdefault(name, []).append(binding)

    def _bind(self, target: ast.AST, value: ast.AST) -> None:
        if isinstance(target, ast.Name):
            self._add(target.id, value)
        elif isinstance(target, ast.Attribute):
            key = (ast.unparse(target.value), target.attr)
            self.names.attributes.setdefault(key, []).append(value)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, value)
        elif isinstance(target, ast.Tuple | ast.List):
            pairs = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            for index, part in enumerate(target.elts):
                self._bind(part, value.elts[index] if pairs else value)  # type: ignore[attr-defined]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Bind a function."""
        self._add(node.name, node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Bind a function."""
        self._add(node.name, node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Bind a class."""
        self._add(node.name, node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Skip it: it binds nothing here."""

    def visit_Global(self, node: ast.Global) -> None:
        """Bind names of the module."""
        self.names.shared.update(node.names)

    def visit_Import(self, node: ast.Import) -> None:
        """Bind modules."""
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self._add(name, Imported(alias.name if alias.asname else name))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Bind names to what is in a module."""
        for alias in node.names:
            imported = Imported(node.module or "", alias.name, node.level)
            self._add(alias.asname or alias.name, imported)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Bind variables."""
        for target in node.targets:
            self._bind(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Bind a variable; what it is declared to hold says something too."""
        self._bind(node.target, node.value or node.annotation)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        """Bind a variable."""
        self._bind(node.target, node.value)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        """Bind a variable that holds one item after the other."""
        self._bind(node.target, node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Bind a variable that holds one item after the other."""
        self._bind(node.target, node.iter)
        self.generic_visit(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        """Bind a name to its context manager, which mostly returns itself."""
        if node.optional_vars is not None:
            self._bind(node.optional_vars, node.context_expr)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """Bind an exception."""
        if node.name:
            self._add(node.name, None)
        self.generic_visit(node)


def _first_line(node: FunctionNode) -> int:
    decorators = getattr(node, "decorator_list", [])
    return decorators[0].lineno if decorators else node.lineno


def parameters(node: FunctionNode) -> list[str]:
    """Return the names of the positional parameters."""
    return [arg.arg for arg in [*node.args.posonlyargs, *node.args.args]]


def plain_function(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function below a bound method."""
    return fn.__func__ if inspect.ismethod(fn) else fn
