"""``python -m greenfilter._serve._describe FILTER [OPTION]...``: tell about a filter, as JSON.

In a process of its own, so that the server never runs the author's code.
"""

from __future__ import annotations

import json
import os
import sys
from typing import NoReturn

from .._app import Filter
from .._load import file_of, load
from ..errors import UsageError
from ..protocol import PHASES


def handlers(app: Filter) -> dict[str, list[str]]:
    """Name the functions that decide, by phase on the wire."""
    named = {PHASES[name].wire: [handler.name] for name, handler in app.filters.items()}
    data = [app.data[1]] if app.data else []
    names = [handler.name for handler in [*data, *app.taps]]
    if names:
        named["data-line"] = names
        # What they return about the message is applied at commit.
        named["commit"] = named.get("commit", []) + names
    return named


def files(target: str) -> list[str]:
    """List the author's files: the one that makes the filter, and what it imports beside it."""
    paths = {getattr(module, "__file__", None) for module in sys.modules.values()}
    loaded = {os.path.abspath(path) for path in paths if path}
    if file := file_of(target):
        folder = os.path.dirname(os.path.abspath(file))
    else:
        name = target.partition(":")[0]
        main = sys.modules.get(name) or sys.modules[name.rpartition(".")[0]]
        folder = os.path.dirname(os.path.abspath(main.__file__ or ""))
    own = {path for path in loaded if path.startswith(folder + os.path.sep)}
    return sorted(path for path in own if f"{os.path.sep}site-packages{os.path.sep}" not in path)


def main() -> NoReturn:
    """Entry point of the process."""
    target, *args = sys.argv[1:]
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        app = load(target, args)
    except UsageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    found = {"name": app.name, "handlers": handlers(app), "files": files(target)}
    with stdout:
        json.dump(found, stdout)
    sys.stdout.flush()
    # The author's threads may not hold up the end.
    os._exit(0)


if __name__ == "__main__":
    main()
