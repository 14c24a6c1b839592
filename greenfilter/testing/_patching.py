"""When pytest's process is patched, so that handlers in it block as they do in production.

The standard library can only be patched before the modules that use it are imported, and it is
patched for good. So it is not done because greenfilter happens to be installed: by default just
before the first test module is imported that asks for a filter in pytest's own process.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

WHEN = ("auto", "always", "never")
IN_PROCESS = frozenset({"smtpd", "load_filter"})
FIXTURES = IN_PROCESS | {"run_filter"}


def patch() -> None:
    """Patch the standard library as ``greenfilter run`` does, and have time go by the clock.

    Once; later calls change nothing.
    """
    from gevent import monkey

    from .._waiting import patch as wait_in_greenlets
    from ._time import process_time

    if not monkey.is_module_patched("socket"):
        wait_in_greenlets()
    # Now, so that `from time import time` in a filter is moved by the clock as well.
    process_time.install()


def fixtures_of(path: Path, foreign: Iterable[str] = ()) -> frozenset[str]:
    """Return the fixtures of the plugin that a test module asks for, without importing it.

    Args:
        path: of the module.
        foreign: names that are fixtures of somebody else here.
    """
    try:
        text = path.read_bytes()
        # Most modules of other projects are not even parsed.
        tree = ast.parse(text if any(name.encode() in text for name in FIXTURES) else b"")
    except (OSError, SyntaxError, ValueError):
        return frozenset()  # pytest is going to say so
    asked: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            asked.update(arg.arg for arg in [*node.args.args, *node.args.kwonlyargs])
        elif isinstance(node, ast.Call) and _name(node.func) == "usefixtures":
            asked.update(str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))
    return (FIXTURES & asked) - frozenset(foreign)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


@contextmanager
def no_arguments() -> Iterator[None]:
    """Leave ``sys.argv`` without options, within the block.

    A filter that reads its own at import, as in ``from guard import app``, would get pytest's.
    """
    before = sys.argv
    sys.argv = before[:1]
    try:
        yield
    finally:
        sys.argv = before
