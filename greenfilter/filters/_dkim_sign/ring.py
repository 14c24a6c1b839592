"""All keys, from options, tables and directories, read again when they change."""

from __future__ import annotations

import argparse
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .._options import read_list
from .._watched import Signature, signature_of
from .keys import Key, load
from .places import KeyProblem, Place, place

_EVERY_SECONDS = 1.0  # that it looks for changes, while there is mail
_ENDINGS = (".pem", ".key", ".private")

log = logging.getLogger("greenfilter.dkim_sign")


class _Loaded(NamedTuple):
    key: Key
    signature: Signature | None


class KeyRing:
    """The keys by domain. For several threads.

    What cannot be read is refused with a log line, once, and what was read before goes on.

    Args:
        places: of keys.
        tables: files with a place in each line.
        directories: with DOMAIN/SELECTOR.pem in them.

    Raises:
        KeyProblem: one of them cannot be read now.
    """

    def __init__(
        self, places: Sequence[Place], tables: Sequence[str] = (), directories: Sequence[str] = ()
    ) -> None:
        self._fixed = list(places)
        self._sources: list[tuple[str, Callable[[str], list[Place]]]] = [
            *((path, read_table) for path in tables),
            *((path, read_directory) for path in directories),
        ]
        self._listed: dict[str, list[Place]] = {}  # by path of the source
        self._loaded: dict[Place, _Loaded] = {}
        self._problems: list[str] = []
        self._by_domain: dict[str, list[Key]] = {}
        self._lock = threading.Lock()
        self._read()
        if self._problems:
            raise KeyProblem(self._problems[0])
        self._next = time.monotonic() + _EVERY_SECONDS

    def keys(self, domain: str, *, parents: bool = False) -> list[Key]:
        """Return a domain's keys, or if ``parents`` those of the nearest domain above that has any.

        May read files.
        """
        self._refresh()
        while domain:
            found = self._by_domain.get(domain, [])
            if found or not parents:
                return found
            domain = domain.partition(".")[2]
        return []

    def _refresh(self) -> None:
        # Whoever comes while it is read takes what was there before.
        if time.monotonic() < self._next or not self._lock.acquire(blocking=False):
            return
        try:
            told, before = set(self._problems), dict(self._loaded)
            self._read()
            for problem in self._problems:
                if problem not in told:
                    log.warning("%s; what was read before goes on", problem)
            _tell_changes(before, self._loaded)
            self._next = time.monotonic() + _EVERY_SECONDS
        finally:
            self._lock.release()

    def _read(self) -> None:
        self._problems = []
        loaded: dict[Place, _Loaded] = {}
        by_domain: dict[str, list[Key]] = {}
        seen: dict[str, Place] = {}
        for each in self._places():
            other = seen.setdefault(str(each), each)
            if other is not each:
                self._problems.append(
                    f"{other.path} and {each.path}: two keys have the same domain and selector, "
                    f"{each}"
                )
            elif (found := self._load(each)) is not None:
                loaded[each] = found
                by_domain.setdefault(each.domain, []).append(found.key)
        self._loaded, self._by_domain = loaded, by_domain

    def _places(self) -> list[Place]:
        places = list(self._fixed)
        for path, read in self._sources:
            try:
                self._listed[path] = read(path)
            except KeyProblem as error:
                self._problems.append(str(error))
            places += self._listed.get(path, [])
        return places

    def _load(self, each: Place) -> _Loaded | None:
        known, signature = self._loaded.get(each), signature_of(each.path)
        if known is not None and known.signature == signature:
            return known
        try:
            return _Loaded(load(each), signature)
        except KeyProblem as error:
            self._problems.append(str(error))
            return known


def read_table(path: str) -> list[Place]:
    """Read a table: ``DOMAIN:SELECTOR:FILE`` at the end of each line, as in OpenDKIM's KeyTable.

    Raises:
        KeyProblem: it cannot be read, or a line is wrong.
    """
    directory = os.path.dirname(os.path.abspath(path))
    try:
        return read_list(path, lambda line: place(line.split()[-1], directory))
    except argparse.ArgumentTypeError as error:
        raise KeyProblem(str(error)) from None


def read_directory(path: str) -> list[Place]:
    """List a directory: ``DOMAIN/SELECTOR.pem``, or ``.key`` or ``.private``; others do not count.

    Raises:
        KeyProblem: it cannot be read, or a name is not valid for DKIM.
    """
    places = []
    try:
        for domain in sorted(os.scandir(path), key=lambda entry: entry.name):
            if domain.name.startswith(".") or not domain.is_dir():
                continue
            for name in sorted(os.listdir(domain.path)):
                stem, ending = os.path.splitext(name)
                if ending in _ENDINGS and not name.startswith("."):
                    file = os.path.join(domain.path, name)
                    places.append(place(f"{domain.name}:{stem}:{file}"))
    except OSError as error:
        raise KeyProblem(f"{error.filename or path}: {error.strerror}") from error
    except argparse.ArgumentTypeError as error:
        raise KeyProblem(f"{path}: {error}") from None
    return places


def _tell_changes(before: dict[Place, _Loaded], after: dict[Place, _Loaded]) -> None:
    for what, places in (
        ("added", after.keys() - before.keys()),
        ("removed", before.keys() - after.keys()),
        ("changed", {each for each in after.keys() & before.keys() if after[each] != before[each]}),
    ):
        if places:
            log.info("keys %s: %s", what, ", ".join(sorted(map(str, places))))
