"""How many numbers an array holds, where the source says it."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable

_CREATORS = frozenset(
    {"zeros", "ones", "empty", "full", "arange", "rand", "randn", "random", "eye", "identity"}
    | {"random_sample", "standard_normal", "normal", "uniform", "randint", "integers"}
)
# Where the shape is the last argument, not the first.
_SHAPE_LAST = ("randint", "integers", "normal", "uniform", "arange")
_BY_ARGUMENTS = ("rand", "randn")
_SQUARE = ("eye", "identity")


def created_size(path: str, call: ast.Call, number: Callable[[ast.AST], int | None]) -> int | None:
    """Return the size of the array that a call makes; None for another call.

    Args:
        path: what is called, with dots.
        call: the call.
        number: gives a whole number that an expression stands for.
    """
    module, _, name = path.rpartition(".")
    if not module.startswith("numpy") or name not in _CREATORS:
        return None
    named = [keyword.value for keyword in call.keywords if keyword.arg in ("size", "shape")]
    one = call.args[-1:] if name in _SHAPE_LAST else call.args[:1]
    shapes = named or (call.args if name in _BY_ARGUMENTS else one)
    sides = [
        side
        for shape in shapes
        for side in (shape.elts if isinstance(shape, ast.Tuple | ast.List) else [shape])
    ]
    numbers = [number(side) for side in sides]
    if not numbers or None in numbers:
        return None
    size = math.prod(n for n in numbers if n is not None)
    return size**2 if name in _SQUARE else size
