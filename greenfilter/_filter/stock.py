"""Find stock filters, which are installed with greenfilter, by their names."""

from __future__ import annotations

import ast
import importlib
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from .._process.python import OWN_FILES
from ..errors import UsageError

if TYPE_CHECKING:
    from .app import Filter

_DIRECTORY = os.path.join(OWN_FILES, "filters")
_NAME = re.compile(r"[A-Za-z][\w-]*")


def is_name(target: str) -> bool:
    """Return whether FILTER is the name of a stock filter, existing or not: no slash, no dot."""
    return _NAME.fullmatch(target) is not None


def names() -> list[str]:
    """List the stock filters."""
    files = sorted(os.listdir(_DIRECTORY))
    return [file[:-3] for file in files if file.endswith(".py") and not file.startswith("_")]


def file_of(target: str) -> str | None:
    """Return the file of a stock filter, or None if there is no such filter."""
    return os.path.join(_DIRECTORY, f"{target}.py") if target in names() else None


def summary(name: str) -> str:
    """Return a filter's first line, without importing it."""
    with open(os.path.join(_DIRECTORY, f"{name}.py"), encoding="utf-8") as file:
        text = ast.get_docstring(ast.parse(file.read())) or ""
    return text.partition("\n")[0]


def build(name: str, arguments: Sequence[str]) -> Filter:
    """Make a stock filter.

    Raises:
        UsageError: no stock filter has this name, one of its options is wrong, or a package that
            it needs is not installed. The text says what to do.
        SystemExit: ``--help`` was given, and has been printed.
    """
    where = f"greenfilter.filters.{name}"
    try:
        app: Filter = importlib.import_module(where).build(arguments)
    except ImportError as error:
        if error.name == where:
            raise UsageError(_unknown(name)) from error
        if (error.name or "greenfilter").partition(".")[0] == "greenfilter":
            raise
        extra = name.replace("_", "-")  # older versions of pip find no extra with an underscore
        text = f"{name}: {error}; install what it needs: pip install 'greenfilter[{extra}]'"
        raise UsageError(f"{text} (in a clone, '.[{extra}]')") from error
    app._stock = (name, list(arguments))
    return app


def relative_paths(app: Filter) -> list[tuple[str, str]]:
    """Return the options, and their values, that name files relative to where smtpd starts.

    Of other filters nobody knows.
    """
    if app._stock is None:
        return []
    name, arguments = app._stock
    options = importlib.import_module(f"greenfilter.filters.{name}").make_options()
    found: list[tuple[str, str]] = options.relative_paths(arguments)
    return found


def _unknown(name: str) -> str:
    text = f"{name}: no stock filter has this name"
    if near := get_close_matches(name.replace("-", "_"), names(), 1):
        text += f"; do you mean {near[0]}?"
    elif os.path.isfile(name):
        text += f"; for the file write ./{name}"
    else:
        text += (
            "; greenfilter filters lists them, and a file has a slash in its name or ends in .py"
        )
    return text
