"""What an expression stands for: something of a library, or something of the filter's own.

Names are followed through imports, assignments, attributes, containers, calls of the filter's own
functions and, where the module has been imported, the objects themselves. What cannot be told is
None, and nothing is said of it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import Any

from .blocking import is_harmless
from .drivers import driver_of_url, makes_engine, passes_on
from .literals import Literals
from .objects import Objects, is_plain
from .sizes import created_size
from .source import FUNCTIONS, Binding, FunctionNode, Imported, Source, Sources, parameters
from .things import (
    Api,
    Class,
    Context,
    Function,
    Instance,
    Module,
    Scope,
    Value,
    identity,
    what_returns,
)

_MAX_DEPTH = 40
_MAX_TIMES = 8  # that the result of a function is looked for, with different arguments


class Values:
    """Tells what expressions stand for.

    Args:
        sources: the files of the filter.
        session_local: what makes ``ctx.session.local``, and
        message_local: ``ctx.tx.local``; None for nothing.
    """

    def __init__(
        self, sources: Sources, session_local: object = None, message_local: object = None
    ) -> None:
        self.sources = sources
        self._local = {"session": session_local, "tx": message_local}
        self.objects = Objects(sources)
        self.literals = Literals(self)
        self._running: set[tuple[Any, ...]] = set()
        self._results: dict[FunctionNode, dict[object, Value | None]] = {}

    # Scopes

    def enter(self, function: Function, call: ast.Call | None, caller: Scope | None) -> Scope:
        """Return the scope of a call."""
        scope = Scope(function.scope.source, function.node, function.scope)
        names = parameters(function.node)
        if function.bound is not None and names:
            scope.given[names.pop(0)] = function.bound
        if call is not None and caller is not None:
            for name, value in zip(names, call.args, strict=False):
                scope.given[name] = self.of(value, caller)
            for keyword in call.keywords:
                if keyword.arg:
                    scope.given[keyword.arg] = self.of(keyword.value, caller)
        return scope

    # Expressions

    def of(self, node: ast.AST, scope: Scope) -> Value | None:
        """Return what an expression stands for. Names that depend on themselves are nothing."""
        if node in scope.known:
            return scope.known[node]
        scope.known[node] = None  # while it is looked for
        scope.known[node] = self._once((node, scope.node), self._of, node, scope)
        return scope.known[node]

    def _once(
        self, key: tuple[Any, ...], look: Callable[..., Value | None], *args: Any
    ) -> Value | None:
        """Look something up, but not while the same is being looked up."""
        if key in self._running or len(self._running) > _MAX_DEPTH:
            return None
        self._running.add(key)
        try:
            return look(*args)
        finally:
            self._running.discard(key)

    def _of(self, node: ast.AST, scope: Scope) -> Value | None:
        match node:
            case ast.Name():
                return self._name(node.id, scope)
            case ast.Attribute():
                return self._attribute_of(node, scope)
            case ast.Call():
                return self._call(node, scope)
            case (
                ast.Await(value=inner)
                | ast.Starred(value=inner)
                | ast.NamedExpr(value=inner)
                | ast.Subscript(value=inner)
            ):
                return self.of(inner, scope)
            case ast.IfExp():
                return self.of(node.body, scope) or self.of(node.orelse, scope)
            case ast.BoolOp():
                return self._first(node.values, scope)
            case ast.BinOp():
                return self._first([node.left, node.right], scope)
            case ast.List() | ast.Tuple() | ast.Set():
                return self._first(node.elts, scope)
            case ast.Dict():
                return self._first(node.values, scope)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                return self.of(node.elt, scope)
            case ast.DictComp():
                return self.of(node.value, scope)
            case ast.Lambda() | ast.FunctionDef() | ast.AsyncFunctionDef():
                return Function(node, scope)
            case ast.ClassDef():
                return Class(node, scope)
        return None

    def _first(self, nodes: list[Any], scope: Scope) -> Value | None:
        found = (self.of(node, scope) for node in nodes)
        return next((value for value in found if value is not None), None)

    def _name(self, name: str, scope: Scope) -> Value | None:
        while scope.node is not None and scope.parent is not None:
            names = scope.source.names_in(scope.node)
            if scope.given.get(name) is not None:
                return scope.given[name]
            if name in names.bindings and name not in names.shared:
                return self._bound(names.bindings[name], scope)
            if name in (arguments := _arguments(scope.node)):
                annotation = arguments[name]
                return self.of(annotation, scope.parent) if annotation is not None else None
            scope = scope.parent
        return self._global(name, scope)

    def _global(self, name: str, scope: Scope) -> Value | None:
        """Return a global; the object knows best what it is, but not what it was imported as."""
        source = scope.source
        known = source.module is not None and hasattr(source.module, name)
        real = getattr(source.module, name, None)
        if isinstance(real, ModuleType):
            return self.objects.what_is(real)
        if known and real is not None and is_plain(real):
            return None
        defined = self.objects.what_is(real) if isinstance(real, FunctionType | type) else None
        if isinstance(defined, Function | Class):
            return defined
        found = self._bound(source.names.bindings.get(name, []), scope)
        for node, function in source.assigned_in_functions.get(name, []):
            found = found or self.of(
                node, Scope(source, function, self.objects.around(source, function))
            )
        if isinstance(found, Api) and found.called and known:
            by_itself = self.objects.what_is(real)
            size = by_itself.size if isinstance(by_itself, Api) else None
            return replace(found, real=real, size=size or found.size)
        if isinstance(found, Instance) and known:
            return replace(found, real=real)
        if found is None and known:
            return self.objects.what_is(real)
        if found is not None or name in source.names.bindings:
            return found
        return Api(name, name) if hasattr(builtins, name) else None

    def _bound(self, bindings: list[Binding | None], scope: Scope) -> Value | None:
        for binding in bindings:
            if isinstance(binding, Imported):
                value = self._imported(binding, scope.source)
            else:
                value = self.of(binding, scope) if binding is not None else None
            if value is not None:
                return value
        return None

    def _imported(self, imported: Imported, source: Source) -> Value | None:
        key = (imported, source)
        return self._once(key, self._import, imported, source)

    def _import(self, imported: Imported, source: Source) -> Value | None:
        module = imported.module
        if imported.level:
            package = getattr(source.module, "__package__", "") or ""
            words = package.split(".") if package else []
            words = words[: len(words) - imported.level + 1]
            module = ".".join([*words, *([module] if module else [])])
        own = self.sources.of_module(module) if module else None
        if not imported.attribute:
            return Module(own) if own else Api(module, module)
        full = f"{module}.{imported.attribute}" if module else imported.attribute
        if own is not None and (
            value := self._global(imported.attribute, self.objects.module(own))
        ):
            return value
        if (submodule := self.sources.of_module(full)) is not None:
            return Module(submodule)
        return None if own is not None else Api(full, full)

    # Attributes

    def _attribute_of(self, node: ast.Attribute, scope: Scope) -> Value | None:
        base = self.of(node.value, scope)
        if base is None or isinstance(base, Api):
            key = (ast.unparse(node.value), node.attr)
            if (value := self._assigned(key, scope)) is not None:
                return value
        return self.attribute(base, node.attr) if base is not None else None

    def _assigned(self, key: tuple[str, str], scope: Scope) -> Value | None:
        """Return what ``local.db`` is, from ``local.db = ...`` in some function of the file."""
        source = scope.source
        if value := self._first(source.names.attributes.get(key, []), self.objects.module(source)):
            return value
        for node in source.enclosing:
            if isinstance(node, FUNCTIONS) and (nodes := source.names_in(node).attributes.get(key)):
                return self._first(nodes, self.objects.inside(source, node))
        return None

    def attribute(self, base: Value, name: str) -> Value | None:
        """Return what is called ``name`` in something."""
        match base:
            case Api():
                return base.attribute(name)
            case Module():
                return self._imported(
                    Imported(getattr(base.source.module, "__name__", ""), name), base.source
                ) or self._global(name, self.objects.module(base.source))
            case Context("ctx"):
                return Context(name) if name in ("session", "tx") else None
            case Context():
                return self._made_by_hook(base.kind) if name == "local" else None
            case Class():
                return self._in_class(base, name, None)
            case Instance():
                return self._in_class(base.made_from, name, base) or self._of_object(base, name)
        return None

    def _made_by_hook(self, kind: str) -> Value | None:
        hook = self._local.get(kind)
        made = self.objects.what_is(hook) if hook is not None else None
        return self.result(made, None, None) if made is not None else None

    def _in_class(self, cls: Class, name: str, instance: Instance | None) -> Value | None:
        key = (cls.node, name)
        return self._once(key, self._look_in_class, cls, name, instance)

    def _look_in_class(self, cls: Class, name: str, instance: Instance | None) -> Value | None:
        names = {node.name: node for node in cls.node.body if isinstance(node, FUNCTIONS[:2])}
        if name in names:
            function = Function(names[name], cls.scope, instance)
            return self.result(function, None, None) if _is_property(names[name]) else function
        for method in names.values():
            own = parameters(method)[:1]
            nodes = cls.scope.source.names_in(method).attributes.get(((own or [""])[0], name), [])
            scope = Scope(cls.scope.source, method, cls.scope)
            if instance is not None and instance.scope and instance.scope.node is method:
                scope = instance.scope
            if (value := self._first(nodes, scope)) is not None:
                return value
        if bindings := cls.scope.source.names_in(cls.node).bindings.get(name):
            return self._bound(bindings, cls.scope)
        return self._inherited(cls, name, instance)

    def _inherited(self, cls: Class, name: str, instance: Instance | None) -> Value | None:
        for node in cls.node.bases:
            base = self.of(node, cls.scope)
            if isinstance(base, Class) and (found := self._in_class(base, name, instance)):
                return found
            if isinstance(base, Api) and not _is_plain_base(base):
                return base.attribute(name)
        return None

    def _of_object(self, instance: Instance, name: str) -> Value | None:
        """Look, but run no property."""
        missing = object()
        value = inspect.getattr_static(instance.real, name, missing)
        if value is missing or isinstance(value, property) or instance.real is None:
            return None
        return self.objects.what_is(value)

    # Calls

    def _call(self, node: ast.Call, scope: Scope) -> Value | None:
        callee = self.of(node.func, scope)
        if not isinstance(callee, Api):
            return self.result(callee, node, scope) if callee is not None else None
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        if callee.path in ("importlib.import_module", "__import__"):
            module = _text(node.args[0]) if node.args else ""
            own = self.sources.of_module(module) if module else None
            return Module(own) if own else Api(module, module) if module else None
        if callee.path == "getattr" and len(node.args) > 1 and (name := _text(node.args[1])):
            base = self.of(node.args[0], scope)
            return self.attribute(base, name) if base is not None else None
        if is_harmless(callee.path, node):
            return Api(callee.name, "", True)
        if callee.path in ("functools.partial", "contextlib.closing", "iter", "next"):
            return self.of(node.args[0], scope) if node.args else None
        if callee.path in ("open", "os.fdopen"):
            given = self.of(node.args[0], scope) if node.args else None
            return given if isinstance(given, Api) and given.called else what_returns(callee)
        if makes_engine(callee.path):
            driver = driver_of_url(node, lambda expr: self.literals.text(expr, scope))
            return Api(f"{callee.name} ({driver})", driver, True) if driver else None
        for argument in arguments:
            given = self.of(argument, scope)
            if isinstance(given, Api) and given.called and passes_on(callee.path, given.path):
                return given
        size = created_size(callee.path, node, lambda expr: self.literals.number(expr, scope))
        return replace(what_returns(callee), size=size or callee.size)

    def result(self, callee: Value, call: ast.Call | None, scope: Scope | None) -> Value | None:
        """Return what a call returns."""
        match callee:
            case Api():
                return what_returns(callee)
            case Class():
                init = self._in_class(callee, "__init__", None)
                if not isinstance(init, Function):
                    return Instance(callee)
                own = replace(init, bound=Instance(callee))
                return Instance(callee, self.enter(own, call, scope))
            case Instance():
                method = self._in_class(callee.made_from, "__call__", callee)
                return self.result(method, call, scope) if method is not None else None
            case Function():
                return self._returned(callee, self.enter(callee, call, scope))
        return None

    def _returned(self, function: Function, scope: Scope) -> Value | None:
        node = function.node
        key = tuple((name, identity(value)) for name, value in scope.given.items())
        results = self._results.setdefault(node, {})
        if key not in results and len(results) < _MAX_TIMES:
            results[key] = None  # while it is looked for
            body = [node.body] if isinstance(node, ast.Lambda) else list(_given_back(node))
            results[key] = self._first(body, scope)
        return results.get(key)


def _is_plain_base(base: Api) -> bool:
    return base.path in ("object", "Exception", "dict", "list", "str", "tuple", "typing.NamedTuple")


def _is_property(node: ast.AST) -> bool:
    return any(
        "property" in ast.unparse(decorator) for decorator in getattr(node, "decorator_list", [])
    )


def _arguments(node: FunctionNode) -> dict[str, ast.expr | None]:
    args = node.args
    more = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return {
        arg.arg: arg.annotation for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs, *more]
    }


def _given_back(node: FunctionNode) -> Iterator[ast.expr]:
    """Return what a function returns or yields, without the functions inside it."""
    todo: list[ast.AST] = list(ast.iter_child_nodes(node))
    for child in todo:
        if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            continue
        if isinstance(child, ast.Return | ast.Yield) and child.value is not None:
            yield child.value
        todo.extend(ast.iter_child_nodes(child))


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
