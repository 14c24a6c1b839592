"""What a filter may not do while it is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..._filter.app import Filter
from .handler_body import values_of
from .problem import Problem
from .reads import read_top
from .source import Source, Sources

# By the end of their names. Each forks, or makes what does.
_PROCESSES = (
    "multiprocessing.Manager",
    "multiprocessing.Pool",
    "multiprocessing.Process",
    "multiprocessing.pool.Pool",
    "multiprocessing.get_context.Manager",
    "multiprocessing.get_context.Pool",
    "multiprocessing.get_context.Process",
    "concurrent.futures.ProcessPoolExecutor",
    "concurrent.futures.process.ProcessPoolExecutor",
)


def check_top(app: Filter) -> list[Problem]:
    """Look at what the files of a filter do when they are imported.

    A process that is started there is a copy of a filter that is half made.
    """
    places = [handler.where for handler in app._registry.handlers() if handler.where]
    files = {place.rpartition(":")[0] for place in places}
    found: set[Problem] = set()
    for file in files:
        sources = Sources(file)
        if sources.of_file(file) is None:
            continue
        values = values_of(app, sources)
        for source in sources.all():
            if source.module is not None:
                reads = read_top(values, values.objects.module(source))
                guarded = set(_guarded(source))
                for called in reads.calls:
                    if called.api.path in _PROCESSES and isinstance(called.node, ast.Call):
                        is_guarded = called.node in guarded
                        found.add(_problem(called.api.name, *called.spot, is_guarded))
    return sorted(found)


def _problem(name: str, file: str, line: int, is_guarded: bool) -> Problem:
    if is_guarded:
        text = f'{name} is not made here: the file is imported, and __name__ is not "__main__"'
    else:
        text = f"{name} at the top of the file starts processes while the filter is imported: each "
        text += "has a copy of what was there by then"
    text += "; make it inside a handler, when it is first used"
    return Problem(file, line, text, is_error=False)


def _guarded(source: Source) -> Iterator[ast.AST]:
    """Return what stands below ``if __name__ == "__main__"``."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            for statement in node.body:
                yield from ast.walk(statement)
