"""What a handler decides: whether it is a decision, and whether it can be made as it is written."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from ... import protocol
from ...errors import DecisionError

MAKERS: dict[str, Callable[..., Any]] = {
    name: getattr(protocol, name)
    for name in ("proceed", "bypass", "junk", "reject", "disconnect", "rewrite", "report")
}
# Stand for what cannot be seen, and are right.
_PLACEHOLDERS = {"code": 550, "text": "text", "value": "value"}
_REPLY = re.compile(r"([45]\d\d)[ -]+(.*)", re.DOTALL)
# Expressions that are not decisions whatever they hold.
_NEVER = (
    ast.Tuple,
    ast.List,
    ast.Set,
    ast.Dict,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
    ast.JoinedStr,
    ast.Compare,
    ast.Lambda,
)


def maker_of(path: str) -> str:
    """Return the name of the decision that a function makes; "" for other functions."""
    package, _, name = path.rpartition(".")
    own = package == "greenfilter" or package.startswith("greenfilter.protocol")
    return name if own and name in MAKERS else ""


def alternatives(values: list[ast.expr]) -> Iterator[ast.expr]:
    """Return the values, with both sides of ``a if b else c`` and the last of ``a or b``."""
    for value in values:
        if isinstance(value, ast.IfExp):
            yield from alternatives([value.body, value.orelse])
        elif isinstance(value, ast.BoolOp):
            yield from alternatives(value.values[-1:])
        else:
            yield value


def what_is_wrong_with(kind: str, call: ast.Call) -> str:
    """Return why a decision cannot be made as written; "" if it can, or nobody knows.

    Args:
        kind: which decision.
        call: the call that makes it.
    """
    if any(isinstance(a, ast.Starred) for a in call.args) or any(
        keyword.arg is None for keyword in call.keywords
    ):
        return ""
    maker = MAKERS[kind]
    signature = inspect.signature(maker)
    named = {str(keyword.arg): keyword.value for keyword in call.keywords}
    try:
        bound = signature.bind(*call.args, **named)
    except TypeError as error:
        return f"{kind}{_shown(signature)} does not take this ({error}){_advice(kind, call)}"
    given = {name: _literal(node, name) for name, node in bound.arguments.items()}
    try:
        maker(**{name: value for name, value in given.items() if value is not None})
    except DecisionError as error:
        return f"{ast.unparse(call)}: {error}"
    return ""


def _literal(node: ast.expr, name: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    if isinstance(node, ast.JoinedStr):
        return "text"
    return _PLACEHOLDERS.get(name)


def _shown(signature: inspect.Signature) -> str:
    names = [
        p.name
        for p in signature.parameters.values()
        if p.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    return f"({', '.join(names)})"


def _advice(kind: str, call: ast.Call) -> str:
    """Suggest ``reject(550, "no")`` for ``reject("550 no")``."""
    text = _text(call.args[0]) if call.args and not call.keywords else ""
    match = _REPLY.fullmatch(text)
    if match is None or kind not in ("reject", "disconnect") or len(call.args) > 1:
        return ""
    return f"; write: {kind}({match[1]}, {match[2]!r})"


def no_decision(value: ast.expr, maker: str, allowed: tuple[type, ...] = ()) -> str:
    """Return what is returned instead of a decision; "" if it may be one.

    Args:
        value: the expression.
        maker: the decision that it is a function for, not called; "" for others.
        allowed: types of literals that may be returned here.
    """
    written = ast.unparse(value)
    written = written if len(written) <= 60 else f"{written[:57]}..."
    if maker:
        return f"returns the function {maker}, not what it makes; write: return {maker}(...)"
    if isinstance(value, ast.Constant):
        if value.value is None or type(value.value) in allowed:
            return ""
        return f"returns {value.value!r}, which is not a decision{_instead(value)}"
    is_bool = isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
    if is_bool or isinstance(value, _NEVER):
        return f"returns {written}, which is not a decision{_instead(value)}"
    return ""


def _instead(value: ast.expr) -> str:
    """Return what the author may have meant."""
    if isinstance(value, ast.Tuple) and len(value.elts) in (2, 3):
        code, *rest = value.elts
        if isinstance(code, ast.Constant) and isinstance(code.value, int):
            return f"; write: return reject({', '.join(map(ast.unparse, [code, *rest[:1]]))})"
        name = _text(code)
        if name in MAKERS:
            return f"; write: return {name}({', '.join(map(ast.unparse, rest))})"
    text = _text(value)
    if text in MAKERS:
        arguments = {"reject": "550, 'text'", "disconnect": "550, 'text'"}.get(text, "")
        return f"; write: return {text}({arguments})"
    if match := _REPLY.fullmatch(text):
        return f"; write: return reject({match[1]}, {match[2]!r})"
    number = value.value if isinstance(value, ast.Constant) else None
    if type(number) is int and 400 <= number <= 599:
        return f"; write: return reject({number}, 'text')"
    return ""


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
