"""Command lines that users give as one argument."""

from __future__ import annotations

import shlex

from ..errors import UsageError


def split_command(command: str) -> list[str]:
    """Split a command line as a shell does.

    Raises:
        UsageError: there is nothing in it, a quote without its end, or a control character.
    """
    if any(ord(char) < 32 or char == "\x7f" for char in command):
        raise UsageError(
            f"{command!r} is not a valid command: it has line breaks or control characters"
        )
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"{command!r} is not a valid command: {error}") from error
    if not words:
        raise UsageError("the command is empty")
    return words
