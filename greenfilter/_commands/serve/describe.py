"""Describe a filter as JSON: ``python -m greenfilter._commands.serve.describe FILTER [OPTION]...``.

In a process of its own, so that the server never runs the author's code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import NoReturn

from ..._chain.chain import Chain
from ..._filter.app import Filter
from ..._filter.load import file_of, load
from ...errors import UsageError
from ...protocol import PHASES


def handlers(app: Filter) -> dict[str, list[str]]:
    """Name the functions that decide, by phase on the wire."""
    named: dict[str, list[str]] = {}
    names: list[str] = []
    for handler in app._registry.handlers():
        kind, _, name = handler.hook.partition(".")
        if kind == "filter" and name != "data_line":
            named.setdefault(PHASES[name].wire, []).append(handler.name)
        elif kind != "report":
            names.append(handler.name)
    if names:
        named["data-line"] = names
        # What they return about the message is applied at commit.
        named["commit"] = named.get("commit", []) + names
    return named


def files(target: str, error: BaseException | None = None) -> list[str]:
    """List the author's files: the one that makes the filter, and what it imports beside it.

    Args:
        target: FILTER.
        error: what has kept it from being loaded; the files it is about belong to the others.
    """
    folder = _folder(target)
    if folder is None:
        return []
    paths = {getattr(module, "__file__", None) for module in sys.modules.values()}
    while error is not None:
        paths.update(_files_of(error, folder))
        error = error.__cause__
    loaded = {os.path.abspath(path) for path in paths if path}
    if target.endswith(".toml"):
        loaded.add(os.path.abspath(target))
    own = {path for path in loaded if path.startswith(folder + os.path.sep)}
    return sorted(path for path in own if f"{os.path.sep}site-packages{os.path.sep}" not in path)


def _folder(target: str) -> str | None:
    """Return where the filter's own files are; None while nothing of it can be found."""
    file = file_of(target)
    if file is None:
        name = target.partition(":")[0]
        main = sys.modules.get(name) or sys.modules.get(name.rpartition(".")[0])
        file = main.__file__ if main is not None else None
    return os.path.dirname(os.path.abspath(file)) if file else None


def _files_of(error: BaseException, folder: str) -> list[str]:
    """List the files that an error came through, or is about."""
    paths = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        paths.append(error.filename)
    if isinstance(error, ModuleNotFoundError) and error.name:  # it may be written yet
        paths.append(os.path.join(folder, *error.name.split(".")) + ".py")
    return paths


def main() -> NoReturn:
    """Run the process."""
    target, *args = sys.argv[1:]
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    found: dict[str, object]
    try:
        app = load(target, args)
    except UsageError as error:
        found = {"error": str(error), "files": files(target, error)}
    else:
        found = {
            "name": app.name,
            "handlers": handlers(app),
            "files": files(target),
            "is_chain": isinstance(app, Chain),
        }
    with stdout:
        json.dump(found, stdout)
    sys.stdout.flush()
    # The author's threads may not hold up the end.
    os._exit(0)


if __name__ == "__main__":
    main()
