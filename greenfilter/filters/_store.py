"""What stock filters keep beyond a worker's life, or share: ``--store sqlite:PATH`` or Redis.

A store maps keys to texts, each until it expires. All that is more than that stands on one
operation: :meth:`Store.update` reads some keys, lets a plain function say what they become, and
writes that all at once, or begins again when somebody else was faster. So the rules of a filter
are functions of values, and hold among all workers of one host (SQLite) or of several (Redis).
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from ..errors import GreenfilterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

Result = TypeVar("Result")
Values = list[str | None]
"""What some keys hold, in their order; None for one that is not there. Texts are never empty."""
Change = Callable[[Values], tuple[Values, Result]]

_RETRY_SECONDS = 1.0  # between two questions to a store that is away
_QUIET_SECONDS = 60.0  # between two log lines that say so
_MOST_KEY_CHARS = 400

log = logging.getLogger("greenfilter.store")


class StoreError(GreenfilterError):
    """The store cannot be asked now. The log has said so, once a minute."""


class Store(ABC):
    """A store.

    Every operation may switch greenlets, waits a bounded time, and may be called from the loop as
    well as from threads.

    Args:
        shown: its name in the log.
        timeout: seconds that an operation may wait for the database or the server.

    Raises:
        StoreError: (every operation) it cannot be asked now.
    """

    def __init__(self, shown: str, timeout: float) -> None:
        self.timeout = timeout
        self._health = _Health(shown, timeout)

    @abstractmethod
    def get_many(self, keys: Sequence[str]) -> Values:
        """Return what some keys hold, in their order."""

    @abstractmethod
    def update(self, keys: Sequence[str], change: Change[Result], lifetime: float) -> Result:
        """Change what some keys hold, all at once.

        Args:
            keys: the keys.
            change: is given their values and returns the new ones, None to remove a key, and
                what this method returns. It may be called again, so it changes nothing else, and
                it must not wait.
            lifetime: seconds that the new values are kept.
        """

    @abstractmethod
    def close(self) -> None:
        """End the store's connections and its thread."""

    def get(self, key: str) -> str | None:
        """Return what a key holds."""
        return self.get_many([key])[0]

    def set(self, key: str, value: str, lifetime: float) -> None:
        """Make a key hold a text, for ``lifetime`` seconds."""
        self.update([key], lambda _: ([value], None), lifetime)

    def add(self, key: str, value: str, lifetime: float) -> bool:
        """Make a key hold a text unless it holds one, and return whether it does so now."""

        def change(values: Values) -> tuple[Values, bool]:
            return (values, False) if values[0] is not None else ([value], True)

        return self.update([key], change, lifetime)

    def increase(self, key: str, amount: int, lifetime: float) -> int:
        """Add to the number that a key holds, at first 0, and return the sum."""

        def change(values: Values) -> tuple[Values, int]:
            total = int(values[0] or 0) + amount
            return [str(total)], total

        return self.update([key], change, lifetime)

    def delete(self, key: str) -> None:
        """Remove a key."""
        self.update([key], lambda _: ([None], None), 1.0)


class _Health:
    """Whether a store may be asked, and what the log says of it.

    One that failed is left alone for a second. Then one caller tries, and the others go on being
    refused at once, so that a server that is silent holds up one request, not all of them.
    """

    def __init__(self, shown: str, timeout: float) -> None:
        self._shown = shown
        self._timeout = timeout
        self._lock = threading.Lock()
        self._away_until = 0.0
        self._away_since = 0.0
        self._quiet_until = 0.0
        self._reason = ""

    @contextmanager
    def watched(self, *failures: type[BaseException]) -> Iterator[None]:
        """Run an operation; its ``failures`` become StoreError."""
        with self._lock:
            now = time.monotonic()
            if now < self._away_until:
                raise StoreError(self._reason)
            if self._away_since:
                self._away_until = now + self._timeout + _RETRY_SECONDS
        try:
            yield
        except failures as error:
            self._failed(" ".join(str(error).split()) or type(error).__name__)
            raise StoreError(self._reason) from error
        self._succeeded()

    def _failed(self, reason: str) -> None:
        with self._lock:
            now = time.monotonic()
            self._reason = f"store {self._shown} is away: {reason}"
            self._away_until = now + _RETRY_SECONDS
            self._away_since = self._away_since or now
            say, self._quiet_until = now >= self._quiet_until, max(self._quiet_until, now)
            if say:
                self._quiet_until = now + _QUIET_SECONDS
        if say:
            log.warning("%s", self._reason)

    def _succeeded(self) -> None:
        if not self._away_since:
            return
        with self._lock:
            seconds, self._away_since = time.monotonic() - self._away_since, 0.0
            self._away_until = self._quiet_until = 0.0
        log.warning("store %s is back after %.0f s", self._shown, seconds)


def open_store(url: str, timeout: float) -> Store:
    """Make the store that ``--store`` names. It is opened when it is first asked.

    Args:
        url: ``sqlite:PATH``, ``redis://[USER:PASSWORD@]HOST[:PORT]/NUMBER``, ``rediss://...`` (TLS)
            or ``unix://PATH[?db=NUMBER]`` (Redis on a socket).
        timeout: seconds that an operation may wait.

    Raises:
        UsageError: the URL is wrong, or nothing can be written where the file is to be.
        ImportError: the package for it is not installed.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        from ._store_sqlite import SqliteStore

        _check_path(rest)
        return SqliteStore(os.path.abspath(rest), timeout)
    if scheme in ("redis", "rediss", "unix") and rest.startswith("//"):
        from ._store_redis import RedisStore

        try:
            # redis-py takes what is not a number for 0, where others may have their keys.
            if scheme != "unix" and not re.fullmatch(r"/?|/[0-9]+", urlsplit(url).path):
                raise ValueError("the database is not a number")
            return RedisStore(url, without_secret(url), timeout)
        except ValueError as error:
            raise UsageError(f"{without_secret(url)}: {error}") from None
    raise UsageError(f"{without_secret(url)}: no store; write sqlite:PATH or redis://HOST/0")


def without_secret(url: str) -> str:
    """Return a URL without user and password, for logs and errors."""
    try:
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    except ValueError:
        return url.partition(":")[0]


def store_key(*parts: str) -> str:
    """Make a key that is safe for every store of parts that a client may have chosen."""
    # What a client sent need not be UTF-8; it comes as surrogates, which no store takes.
    texts = [part.encode("utf-8", "backslashreplace").decode() for part in parts]
    key = "|".join(text.replace("\\", "\\\\").replace("|", "\\p") for text in texts)
    if len(key) <= _MOST_KEY_CHARS and key.isprintable():
        return key
    from hashlib import sha256

    return f"{parts[0]}|sha256:{sha256(key.encode()).hexdigest()}"


def _check_path(path: str) -> None:
    if not path:
        raise UsageError("sqlite: names no file; write sqlite:PATH")
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        raise UsageError(
            f"sqlite:{path}: there is no directory {directory}; make it, for smtpd's user to write "
            "in, or name another place by --store"
        )
    if os.path.isdir(path):
        raise UsageError(f"sqlite:{path}: is a directory")
    writable = os.access(path if os.path.exists(path) else directory, os.W_OK)
    # WAL needs two more files beside it.
    if not (writable and os.access(directory, os.W_OK | os.X_OK)):
        raise UsageError(f"sqlite:{path}: this user may not write there and in its directory")
