"""Patterns of rules: globs, and regular expressions whose cost is known beforehand.

Python's ``re`` holds the interpreter while it matches, so that no time limit can end it. What
could take long is refused when the rules are read; what all rules take together for one message
has a :class:`Budget`.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from ...errors import GreenfilterError

MOST_CHARS = 500  # of a value that a regular expression sees
MOST_GLOB_CHARS = 8192
_MOST_STEPS = 16 * (MOST_CHARS + 1) ** 2  # a fifth of a second, at worst
MOST_SECONDS = 1.0  # of processor time, for all rules on one message


class TooSlow(GreenfilterError):
    """The rules have used up the time that a message has.

    Attributes:
        pattern: what took longest.
    """

    def __init__(self, pattern: str) -> None:
        super().__init__(f"rules take too long; {pattern} took longest")
        self.pattern = pattern


class Budget:
    """The processor time that rules may take for one message, whatever else the machine does.

    A hostile message can be the worst case of each pattern for each of its fields.
    """

    def __init__(self) -> None:
        self._left = MOST_SECONDS
        self._end = 0.0
        self._then = 0.0
        self._pattern = ""
        self._slowest = (0.0, "")

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Have what this thread does count."""
        begun = self._then = time.thread_time()
        self._end = begun + self._left
        try:
            yield
        finally:
            self._left -= time.thread_time() - begun

    def check(self, pattern: str) -> None:
        """Check that there is time left, before a pattern is tried.

        Raises:
            TooSlow: there is none.
        """
        now = time.thread_time()
        self._slowest = max(self._slowest, (now - self._then, self._pattern))
        self._then, self._pattern = now, pattern
        if now >= self._end:
            raise TooSlow(self._slowest[1])


class Pattern:
    """A glob, which is for the whole value, or ``/a regular expression/``, found anywhere.

    Case does not matter. A glob knows ``*`` and ``?``.

    Raises:
        ValueError: it is not a regular expression, or one that could take too long.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._is_glob = not (len(text) > 1 and text.startswith("/") and text.endswith("/"))
        self._limit = MOST_GLOB_CHARS if self._is_glob else MOST_CHARS
        if self._is_glob:
            # fnmatch makes groups that never give back what they took, so time stays in bounds.
            source = fnmatch.translate(text.replace("[", "[[]"))
        else:
            source = text[1:-1]
            _check_cost(source)
        try:
            self._regex = re.compile(source, re.IGNORECASE)
        except re.error as error:  # what the parser takes, the compiler may not
            raise ValueError(f"{text} is not a regular expression: {error}") from None
        self.groups = 0 if self._is_glob else self._regex.groups

    def matches(self, value: str, budget: Budget) -> bool:
        """Return whether a value, or what is looked at of it, matches.

        Raises:
            TooSlow: there is no time for it.
        """
        budget.check(self.text)
        value = value[: self._limit]
        return bool(self._regex.match(value) if self._is_glob else self._regex.search(value))

    def replaced(self, value: str, by: str, budget: Budget) -> str:
        """Return a value with what matches replaced; what is beyond the limit stays as it is.

        Raises:
            TooSlow: there is no time for it.
        """
        budget.check(self.text)
        head, rest = value[: self._limit], value[self._limit :]
        return (by if self._is_glob else self._regex.sub(by, head)) + rest

    def check_replacement(self, by: str) -> None:
        """Check what matches are to be replaced by.

        Raises:
            ValueError: it names a group that the expression has not.
        """
        if not self._is_glob:
            try:
                _parser.parse_template(by, self._regex)
            except (re.error, IndexError) as error:
                raise ValueError(f"{by!r}: {error}") from None


def _check_cost(source: str) -> None:
    try:
        tree = _parser.parse(source, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"/{source}/ is not a regular expression: {error}") from None
    anchored = bool(tree) and str(tree[0][0]) == "AT" and str(tree[0][1]).startswith("AT_BEGINNING")
    starts = 1 if anchored else MOST_CHARS
    if starts * _steps(tree) > _MOST_STEPS:
        raise ValueError(
            f"/{source}/ could take too long: begin it with ^, use fewer of * + ? {{}} and |, and "
            "none of them within another one"
        )


def _steps(tree: Any) -> int:
    """Return the number of ways to go through an expression on a value of the longest kind.

    That is the product of the choices in it, as all may have to be tried after each other.
    """
    ways = 1
    for operation, argument in tree:
        ways = min(ways * _ways(str(operation), argument), _MOST_STEPS + 1)
    return ways


def _ways(operation: str, argument: Any) -> int:
    if operation in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inner = argument
        most = min(int(most), MOST_CHARS)
        inside = _steps(inner)
        if inner.getwidth()[0] == 0 and most > 1:  # goes on without coming further
            return _MOST_STEPS + 1
        if inside > 1 and most > 1:  # choices again each time it is repeated
            return int(min(inside ** min(most, 64), _MOST_STEPS + 1))
        return max(most - int(least) + 1, 1) * inside
    if operation == "BRANCH":
        return sum(_steps(each) for each in argument[1])
    if operation == "GROUPREF_EXISTS":
        return sum(_steps(each) for each in argument[1:] if each)
    if operation in ("SUBPATTERN", "ASSERT", "ASSERT_NOT", "ATOMIC_GROUP"):
        return _steps(argument if operation == "ATOMIC_GROUP" else argument[-1])
    return 1
