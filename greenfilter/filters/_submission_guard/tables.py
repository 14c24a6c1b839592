"""Whose address is whose: in a file, in SQLite, by a command, or in LDAP."""

from __future__ import annotations

import math
import os
import shlex
import sqlite3
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from contextlib import closing
from logging import Logger
from typing import Any
from urllib.parse import unquote, urlsplit

from cachetools import TTLCache

from ...errors import GreenfilterError, UsageError
from .._watched import Watched
from .addresses import Owned

_CACHE_SIZE = 10_000
DEFAULT_QUERY = "select address from addresses where user = ?"


class TableError(GreenfilterError):
    """The table cannot be asked now."""


class Table(ABC):
    """A table of users and their addresses. Every method may switch greenlets.

    Attributes:
        blocks: it is asked in C, and so in the thread pool.
    """

    blocks = False

    @abstractmethod
    def addresses(self, user: str) -> list[str]:
        """List a user's addresses and patterns; none for a user who is not there.

        Raises:
            TableError: it cannot be asked now.
        """


class FileTable(Table):
    """``USER: ADDRESS, ADDRESS`` in each line, read again when it changes.

    A file that is broken then is refused: what was read before goes on.

    Raises:
        UsageError: it cannot be read now.
    """

    def __init__(self, path: str, log: Logger) -> None:
        try:
            self._users = Watched(path, _read_users, log)
        except TableError as error:
            raise UsageError(str(error)) from None

    def addresses(self, user: str) -> list[str]:
        """List a user's addresses."""
        return self._users.value.get(user.lower(), [])


class SqliteTable(Table):
    """A query that gives a user's addresses, one in each row."""

    blocks = True

    def __init__(self, path: str, query: str, timeout: float) -> None:
        self._path = os.path.abspath(path)
        self._query = query
        self._timeout = timeout
        if not os.path.isfile(path):
            raise UsageError(f"{path}: no such file")

    def addresses(self, user: str) -> list[str]:
        """List a user's addresses."""
        from urllib.request import pathname2url

        try:
            uri = f"file:{pathname2url(self._path)}?mode=ro"
            with closing(sqlite3.connect(uri, self._timeout, uri=True)) as db:
                rows = db.execute(self._query, (user,)).fetchall()
        except sqlite3.Error as error:
            raise TableError(f"sqlite:{self._path}: {error}") from error
        return [str(row[0]) for row in rows if row[0]]


class CommandTable(Table):
    """A program that is given a user, and prints the addresses, one in each line."""

    def __init__(self, command: str, timeout: float) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"command:{command}: {error}") from None
        if not self._words:
            raise UsageError("command: names no program")
        self._timeout = timeout

    def addresses(self, user: str) -> list[str]:
        """List a user's addresses."""
        if user.startswith("-") or "\0" in user:  # no user, but perhaps an option
            return []
        name = self._words[0]
        try:
            done = subprocess.run(
                [*self._words, user],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._timeout,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise TableError(f"{name}: no end within {self._timeout:g} s") from None
        except OSError as error:
            raise TableError(f"{name}: {error.strerror}") from error
        if done.returncode:
            said = " ".join(done.stderr.split())[:200]
            raise TableError(f"{name} ended with status {done.returncode}: {said}")
        return done.stdout.split()


class LdapTable(Table):
    """A search: ``ldap://HOST/BASE?ATTRIBUTE,...?SCOPE?FILTER`` (RFC 4516), ``%u`` for the user."""

    def __init__(self, url: str, bind_dn: str | None, password: str | None, timeout: float) -> None:
        try:
            parts = urlsplit(url)
            _ = parts.port  # raises if it is not valid
        except ValueError as error:
            raise UsageError(f"{url}: {error}") from None
        attributes, scope, search = [*parts.query.split("?"), "", ""][:3]
        self._attributes = [unquote(name) for name in attributes.split(",") if name] or ["mail"]
        scopes = {"base": "BASE", "one": "LEVEL", "sub": "SUBTREE", "": "SUBTREE"}
        if scope not in scopes or not parts.hostname:
            raise UsageError(f"{url}: not ldap://HOST/BASE?ATTRIBUTE,...?SCOPE?FILTER")
        self._scope = scopes[scope]
        self._filter = unquote(search) or "(uid=%u)"
        if "%u" not in self._filter:
            raise UsageError(f"{url}: there is no %u in the filter, for the user")
        self._base = unquote(parts.path.lstrip("/"))
        self._server = f"{parts.scheme}://{parts.netloc}"
        self._bind = (bind_dn, password)
        self._timeout = timeout
        _check_filter(url, self._filter.replace("%u", "user"))

    def addresses(self, user: str) -> list[str]:
        """List a user's addresses."""
        import ldap3  # type: ignore[import-untyped]
        from ldap3.core.exceptions import LDAPException  # type: ignore[import-untyped]
        from ldap3.utils.conv import escape_filter_chars  # type: ignore[import-untyped]

        search = self._filter.replace("%u", escape_filter_chars(user))
        try:
            server = ldap3.Server(self._server, get_info=ldap3.NONE, connect_timeout=self._timeout)
            connection = ldap3.Connection(
                server,
                *self._bind,
                read_only=True,
                receive_timeout=math.ceil(self._timeout),  # it takes no fractions
                raise_exceptions=True,
            )
            try:
                connection.bind()
                connection.search(self._base, search, self._scope, attributes=self._attributes)
                entries = connection.response or []
            finally:
                connection.unbind()
                if connection.socket is not None:  # ldap3 leaves it open when it cannot connect
                    connection.socket.close()
        except (LDAPException, OSError) as error:
            raise TableError(f"{self._server}: {' '.join(str(error).split())}") from error
        found = [entry["attributes"] for entry in entries if "attributes" in entry]
        return [text for each in found for name in self._attributes for text in _texts(each, name)]


class CachedTable(Table):
    """Another table, whose answers are kept for some seconds."""

    def __init__(self, table: Table, seconds: float) -> None:
        self.blocks = table.blocks
        self._table = table
        self._lock = threading.Lock()
        self._kept: TTLCache[str, list[str]] = TTLCache(_CACHE_SIZE, seconds, time.monotonic)

    def addresses(self, user: str) -> list[str]:
        """List a user's addresses."""
        with self._lock:
            kept = self._kept.get(user)
        if kept is None:
            kept = self._table.addresses(user)
            with self._lock:
                self._kept[user] = kept
        return kept


def _read_users(path: str) -> dict[str, list[str]]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TableError(f"{path}: {reason}") from None
    users: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        user, colon, rest = text.partition(":")
        patterns = rest.replace(",", " ").split()
        if not text:
            continue
        if not (colon and user.strip() and patterns):
            raise TableError(f"{path}:{number}: not USER: ADDRESS, ...")
        _check(f"{path}:{number}", patterns)
        users.setdefault(user.strip().lower(), []).extend(patterns)
    return users


def _check(where: str, patterns: list[str]) -> None:
    try:
        Owned(patterns, "")
    except ValueError as error:
        raise TableError(f"{where}: {error}") from None


def _check_filter(url: str, search: str) -> None:
    from ldap3.core.exceptions import LDAPException
    from ldap3.operation.search import parse_filter  # type: ignore[import-untyped]

    try:
        parse_filter(search, None, False, False, None, False)
    except LDAPException as error:
        raise UsageError(f"{url}: {search!r}: {error}") from None


def _texts(attributes: Any, name: str) -> list[str]:
    value = attributes.get(name, [])
    return [str(each) for each in (value if isinstance(value, list) else [value])]
