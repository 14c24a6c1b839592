"""What objects are that the filter has made when it was imported."""

from __future__ import annotations

import ast
import functools
import inspect
from dataclasses import replace
from types import ModuleType
from typing import Any

from .drivers import driver_of_engine
from .source import FUNCTIONS, FunctionNode, Source, Sources, plain_function
from .things import Api, Class, Function, Instance, Module, Scope, Value

_LOOKED_AT = 3  # of what a container holds
_PLAIN = (str, bytes, bytearray, int, float, complex, type(None))
_CONTAINERS = (list, tuple, set, frozenset)
# Where the module that a thing says it comes from is not the one that it is imported from.
_RENAMED = {"posix": "os", "_thread": "threading", "_operator": "operator"}


class Objects:
    """Tells what objects are, and where their source is.

    Args:
        sources: the files of the filter.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._modules: dict[Source, Scope] = {}

    def module(self, source: Source) -> Scope:
        """Give the scope of a file."""
        return self._modules.setdefault(source, Scope(source))

    def around(self, source: Source, node: ast.AST) -> Scope:
        """Give the scope in which a function or class is defined; its arguments are unknown."""
        outer = source.enclosing.get(node)
        while isinstance(outer, ast.ClassDef):
            outer = source.enclosing.get(outer)
        return self.inside(source, outer) if isinstance(outer, FUNCTIONS) else self.module(source)

    def inside(self, source: Source, node: FunctionNode) -> Scope:
        """Give the scope of a function whose arguments are unknown."""
        return Scope(source, node, self.around(source, node))

    def _first(self, things: list[Any]) -> Value | None:
        found = (self.what_is(thing) for thing in things[:_LOOKED_AT])
        return next((value for value in found if value is not None), None)

    def what_is(self, thing: Any) -> Value | None:
        """Give what an object is."""
        if isinstance(thing, ModuleType):
            own = self.sources.of_module(thing.__name__)
            return Module(own) if own else Api(thing.__name__, thing.__name__, real=thing)
        if isinstance(thing, _CONTAINERS):
            return self._first(list(thing))
        if isinstance(thing, dict):
            return self._first(list(thing.values()))
        if isinstance(thing, _PLAIN):
            return None
        if isinstance(thing, functools.partial):
            return self.what_is(thing.func)
        if inspect.isfunction(thing) or inspect.ismethod(thing):
            return self._real_function(thing)
        if isinstance(thing, type) or inspect.isbuiltin(thing):
            return self._real_class(thing) or _qualified(thing)
        if driver := driver_of_engine(thing):
            return Api(f"sqlalchemy.create_engine ({driver})", driver, True)
        made_from = self._real_class(type(thing))
        if isinstance(made_from, Class):
            return Instance(made_from, real=thing)
        api = _qualified(type(thing))
        if api is None:
            return None
        size = getattr(thing, "size", None) if api.path.startswith("numpy.") else None
        size = size if isinstance(size, int) else None
        return replace(api, called=True, real=thing, size=size)

    def _real_function(self, fn: Any) -> Value | None:
        fn = inspect.unwrap(plain_function(fn)) if inspect.isfunction(fn) else fn
        plain = plain_function(fn)
        source = self.sources.of_file(plain.__code__.co_filename)
        if source is None:
            return _qualified(plain)
        node = source.find(plain)
        if node is None:
            return None
        bound = self.what_is(fn.__self__) if inspect.ismethod(fn) else None
        return Function(node, self.around(source, node), bound)

    def _real_class(self, cls: Any) -> Class | None:
        source = self.sources.of_module(getattr(cls, "__module__", None) or "")
        node = source.find_class(cls.__name__) if source is not None else None
        return Class(node, self.around(source, node)) if source and node else None


def _qualified(thing: Any) -> Api | None:
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    module = _RENAMED.get(module, module.removeprefix("_"))
    full = name if module == "builtins" else f"{module}.{name}"
    return Api(full, full, real=thing)


def is_plain(real: Any) -> bool:
    """Whether an object of a module is data, with nothing in it that could block."""
    if isinstance(real, _CONTAINERS):
        return bool(real) and all(is_plain(part) for part in list(real)[:_LOOKED_AT])
    if isinstance(real, dict):
        return bool(real) and all(is_plain(part) for part in list(real.values())[:_LOOKED_AT])
    return isinstance(real, _PLAIN)
