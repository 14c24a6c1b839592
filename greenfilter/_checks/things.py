"""What expressions can stand for."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from typing import Any

from .source import FunctionNode, Source


@dataclass(frozen=True)
class Api:
    """Something of a library, or what it returned.

    Args:
        name: for messages: ``psycopg2.connect`` also for what was made from the connection.
        path: all attributes on the way: ``psycopg2.connect.cursor.execute``.
        called: it is what a call returned.
        size: how many numbers it holds, where that can be seen.
        real: the object itself, if there is one.
    """

    name: str
    path: str
    called: bool = False
    size: int | None = None
    real: Any = field(default=None, compare=False)

    def attribute(self, name: str) -> Api:
        """Give what is called ``name`` in it."""
        shown = self.name if self.called else f"{self.name}.{name}"
        return Api(shown, f"{self.path}.{name}", self.called, self.size, self.real)


@dataclass(frozen=True)
class Context:
    """``ctx``, its ``session`` or its ``tx``: what ``kind`` says."""

    kind: str


@dataclass(frozen=True)
class Module:
    """A module of the filter's own."""

    source: Source


@dataclass(frozen=True)
class Function:
    """A function of the filter's own.

    Args:
        node: its definition.
        scope: where it is defined.
        bound: the object whose method it is.
    """

    node: FunctionNode
    scope: Scope
    bound: Value | None = None


@dataclass(frozen=True)
class Class:
    """A class of the filter's own, and where it is defined."""

    node: ast.ClassDef
    scope: Scope


@dataclass(frozen=True)
class Instance:
    """An object of such a class.

    Args:
        made_from: the class.
        scope: that of its ``__init__``, with the arguments.
        real: the object itself, if there is one.
    """

    made_from: Class
    scope: Scope | None = None
    real: Any = field(default=None, compare=False)


Value = Api | Context | Module | Function | Class | Instance


@dataclass(eq=False)
class Scope:
    """A module, or a call of a function.

    Args:
        source: the file.
        node: the function; None for the module.
        parent: the scope around it.
        given: what parameters hold.
        known: what expressions of it stand for, as far as they were looked at.
    """

    source: Source
    node: FunctionNode | None = None
    parent: Scope | None = None
    given: dict[str, Value | None] = field(default_factory=dict)
    known: dict[ast.AST, Value | None] = field(default_factory=dict)


def identity(value: Value | None) -> object:
    """Give what makes two values the same for who reads a function with them."""
    match value:
        case Function() | Class():
            return value.node
        case Instance():
            return value.made_from.node
        case Module():
            return value.source
    return value


def what_returns(callee: Api) -> Api:
    """What a call of something of a library returns."""
    return replace(callee, called=True, real=None)
