"""Paths in the values of options: each function gives the path that a value names, "" for none."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

PathIn = Callable[[str], str]


def whole_value(text: str) -> str:
    """A value that is a path."""
    return text


def no_path(text: str) -> str:
    """A value in which there is no path."""
    return ""


def after(*prefixes: str, otherwise: PathIn = no_path) -> PathIn:
    """A path behind one of some prefixes, as in ``sqlite:PATH``; ``otherwise`` reads the rest."""

    def path(text: str) -> str:
        for prefix in prefixes:
            if text.startswith(prefix):
                return text.removeprefix(prefix)
        return otherwise(text)

    return path


def program(text: str) -> str:
    """The program of a command; one without a slash is looked for in PATH."""
    try:
        name = (shlex.split(text) or [""])[0]
    except ValueError:
        return ""
    return name if os.path.sep in name else ""
