"""Files that are read anew when they change: a broken one is refused, and the old one goes on."""

from __future__ import annotations

import os
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from logging import Logger
from typing import Any, Generic, TypeVar

from ..errors import GreenfilterError

Signature = tuple[int, int, int, int]
Value = TypeVar("Value")


def signature_of(path: str) -> Signature | None:
    """Return what changes with a file, or with who may read it; None if it is not there."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


class Watched(Generic[Value]):
    """What is in a file. For several threads.

    Args:
        path: of the file.
        read: reads it, and raises GreenfilterError or ArgumentTypeError where that is not
            possible. Each line of the text tells one thing, with the place.
        log: what has changed is told there.

    Raises:
        GreenfilterError: (or what else ``read`` raises) it cannot be read now.
    """

    def __init__(self, path: str, read: Callable[[str], Value], log: Logger) -> None:
        self._path = path
        self._read = read
        self._log = log
        self._lock = threading.Lock()
        self._signature = signature_of(path)
        self._value = read(path)

    @property
    def value(self) -> Value:
        """What counts now: of the file as it is, or as it was when it could be read last."""
        with self._lock:
            signature = signature_of(self._path)
            if signature != self._signature:
                self._signature = signature
                try:
                    self._value = self._read(self._path)
                    self._log.info("%s was read anew", self._path)
                except (GreenfilterError, ArgumentTypeError) as error:
                    *others, last = str(error).splitlines()
                    for line in others:
                        self._log.warning("%s", line)
                    self._log.warning("%s; what was read before goes on", last)
            return self._value


class WatchedList(Iterable[Any]):
    """The values of an option that may be repeated, some of them from watched files.

    Args:
        parts: what each time brought.
    """

    def __init__(self, parts: Iterable[list[Any] | Watched[list[Any]]] = ()) -> None:
        self._parts = tuple(parts)

    def __iter__(self) -> Iterator[Any]:
        """Yield the values that count now."""
        return chain.from_iterable(self.lists())

    def lists(self) -> list[list[Any]]:
        """Return what each part has now: the same object as before, unless it was read anew."""
        return [part.value if isinstance(part, Watched) else part for part in self._parts]

    def plus(self, part: list[Any] | Watched[list[Any]]) -> WatchedList:
        """Return a list with one part more."""
        return WatchedList((*self._parts, part))


class Derived(Generic[Value]):
    """What is made of the values of an option, anew only when they have changed.

    Args:
        values: of the option.
        make: makes it.
    """

    def __init__(self, values: WatchedList, make: Callable[[Iterable[Any]], Value]) -> None:
        self._values = values
        self._make = make
        self._made_of = values.lists()
        self._value = make(chain.from_iterable(self._made_of))

    @property
    def value(self) -> Value:
        """What is made of the values that count now."""
        lists = self._values.lists()
        if any(now is not then for now, then in zip(lists, self._made_of, strict=True)):
            self._value = self._make(chain.from_iterable(lists))
            self._made_of = lists
        return self._value
