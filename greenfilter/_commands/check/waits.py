"""Calls of a handler that hold up all sessions, or that cannot work where it runs."""

from __future__ import annotations

import ast
import os
import stat
from collections.abc import Iterable, Iterator
from functools import cached_property

from ..._filter.handlers import Handler
from .blocking import PIPE, Cause, cause, cured, is_harmless, trouble_in_thread
from .reads import Called
from .things import Api
from .values import Values

_WITHOUT_THREAD = ("lines", "tap")
_OPENS = ("open", "os.open", "io.open")
# A function in which one of these is called knows when there is something to read.
_KNOWS_WHEN = ("select(", "poll(", "set_blocking(", "O_NONBLOCK")
_FIFO = Cause("waits for the other end of the FIFO", "use subprocess", key="open")


class Waits:
    """Tells what is wrong with calls.

    Args:
        values: tells what expressions are.
        handler: whose calls they are.
    """

    def __init__(self, values: Values, handler: Handler) -> None:
        self._values = values
        self._handler = handler

    def told(self, calls: Iterable[Called]) -> Iterator[tuple[Called, str, bool]]:
        """Return the calls that are wrong, each library once, with why, and whether it is sure."""
        seen: set[str] = set()
        for called in calls:
            if self._handler.thread:
                if text := trouble_in_thread(called.api.path):
                    yield called, f"{called.api.name} {text}", "signals" in text
                continue
            found = self._cause(called)
            if found is not None and found.key not in seen:
                seen.add(found.key)
                holds = ", and holds up all sessions" if found.blocks else ""
                text = f"{called.api.name} {found.does}{holds}; {self._remedy(found)}"
                yield called, text, found.is_error

    def _remedy(self, found: Cause) -> str:
        thread = "register with thread=True"
        if self._handler.hook in _WITHOUT_THREAD:
            thread = "use @app.message(thread=True) instead"
        remedies = [thread] if found.thread else []
        return ", or ".join([*remedies, *([found.instead] if found.instead else [])])

    def _cause(self, called: Called) -> Cause | None:
        api, node = called.api, called.node
        if is_harmless(api.path, node):
            return None
        if isinstance(node, ast.Call) and api.path in _OPENS and node.args:
            fifo = self._is_fifo(called, node)
            if fifo:
                return _FIFO
        found = cause(api.path, self._size(called))
        if found is None or found.key.partition(".")[0] in self._cured:
            return None
        if _uses_its_own_threads(api):
            return None
        return None if found.does == PIPE.does and _knows_when(called) else found

    def _size(self, called: Called) -> int | None:
        if called.api.size is not None or not isinstance(called.node, ast.Call):
            return called.api.size
        given = (self._values.of(argument, called.scope) for argument in called.node.args)
        sizes = [value.size for value in given if isinstance(value, Api) and value.size]
        return max(sizes, default=None)

    @cached_property
    def _cured(self) -> set[str]:
        return set().union(*(cured(source.tree) for source in self._values.sources.all()))

    def _is_fifo(self, called: Called, node: ast.Call) -> bool:
        if "O_NONBLOCK" in ast.unparse(node):
            return False
        path = self._values.literals.text(node.args[0], called.scope)
        try:
            if path and stat.S_ISFIFO(os.stat(path).st_mode):
                return True
        except (OSError, ValueError):
            pass
        made = {
            ast.dump(call.args[0])
            for call in ast.walk(called.scope.source.tree)
            if isinstance(call, ast.Call)
            and call.args
            and ast.unparse(call.func).rpartition(".")[2] == "mkfifo"
        }
        return ast.dump(node.args[0]) in made


def _knows_when(called: Called) -> bool:
    text = ast.unparse(called.scope.node) if called.scope.node is not None else ""
    return any(word in text for word in _KNOWS_WHEN)


def _uses_its_own_threads(api: Api) -> bool:
    """Return whether it is a model of scikit-learn with ``n_jobs``, which waits for its threads."""
    jobs = getattr(api.real, "n_jobs", None) if api.path.startswith("sklearn.") else None
    return isinstance(jobs, int) and jobs != 1
