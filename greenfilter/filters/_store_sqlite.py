"""The store in a file, for all workers of one host."""

from __future__ import annotations

import os
import sqlite3
import time
from _queue import SimpleQueue  # of C: queue's waits in a greenlet, and a thread has none
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from gevent.monkey import get_original

from ._store import Change, Result, Store, Values

_CLEAN_SECONDS = 300.0
_CLEAN_ROWS = 5000  # at once: others want to write too
_GRACE_SECONDS = 0.5  # for what is not waiting for a lock
_SCHEMA = """
create table if not exists entries (
    key text primary key, value text not null, expires real not null
) without rowid;
create index if not exists entries_expire on entries (expires);
"""


class SqliteStore(Store):
    """A store in SQLite (WAL), with a thread of its own: C waits there for the locks of others.

    Args:
        path: of the file; it is made when it is not there.
        timeout: seconds that an operation may wait for the database.
    """

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__(f"sqlite:{path}", timeout)
        self._path = path
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._pid = 0  # of the process that the thread runs in
        self._db: sqlite3.Connection | None = None
        self._clean_at = 0.0

    def get_many(self, keys: Sequence[str]) -> Values:
        """Return what some keys hold, in their order."""
        return self._in_thread(lambda: [self._read(key) for key in keys])

    def update(self, keys: Sequence[str], change: Change[Result], lifetime: float) -> Result:
        """Change what some keys hold, all at once. See :meth:`Store.update`."""
        return self._in_thread(lambda: self._change(keys, change, lifetime))

    def close(self) -> None:
        """End the thread, after what it has to do still."""
        if self._pid == os.getpid():
            self._jobs.put(None)
        self._pid = 0

    def _in_thread(self, job: Callable[[], Result]) -> Result:
        with self._health.watched(sqlite3.Error, OSError, FutureTimeout):
            if self._pid != os.getpid():
                self._pid, self._db = os.getpid(), None
                self._jobs = SimpleQueue()
                get_original("_thread", "start_new_thread")(self._work, (self._jobs,))
            done: Future[Result] = Future()
            self._jobs.put((done, job))
            try:
                return done.result(self.timeout + _GRACE_SECONDS)
            except FutureTimeout:
                done.cancel()
                raise FutureTimeout(f"no answer in {self.timeout:g} s") from None

    # In the thread

    def _work(self, jobs: SimpleQueue[Any]) -> None:
        while (order := jobs.get()) is not None:
            done, job = order
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(job())
            except BaseException as error:
                self._disconnect()
                done.set_exception(error)
        self._disconnect()

    def _connect(self) -> sqlite3.Connection:
        if self._db is None:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = db = sqlite3.connect(self._path, self.timeout, isolation_level=None)
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = normal")
            db.executescript(_SCHEMA)
        return self._db

    def _disconnect(self) -> None:
        """Close after an error: a file that was replaced, or a disk that was full, is met again."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _read(self, key: str) -> str | None:
        query = "select value from entries where key = ? and expires > ?"
        row = self._connect().execute(query, (key, time.time())).fetchone()
        return row[0] if row else None

    def _change(self, keys: Sequence[str], change: Change[Result], lifetime: float) -> Result:
        db = self._connect()
        db.execute("begin immediate")
        try:
            before = [self._read(key) for key in keys]
            after, result = change(list(before))
            self._write(keys, before, after, time.time() + lifetime)
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise
        return result

    def _write(self, keys: Sequence[str], before: Values, after: Values, expires: float) -> None:
        db = self._connect()
        for key, old, new in zip(keys, before, after, strict=True):
            if new is None and old is not None:
                db.execute("delete from entries where key = ?", (key,))
            elif new is not None:
                db.execute("insert or replace into entries values (?, ?, ?)", (key, new, expires))
        now = time.time()
        if now >= self._clean_at:
            query = "select key from entries where expires <= ? limit ?"
            db.execute(f"delete from entries where key in ({query})", (now, _CLEAN_ROWS))
            self._clean_at = now + _CLEAN_SECONDS
