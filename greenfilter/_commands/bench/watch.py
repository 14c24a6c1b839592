"""Find out which handlers keep the loop, and in which line."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import gevent
from gevent.monkey import get_original

from ..._filter.app import Filter
from ..check.source import Sources
from .meter import Meter, _Entry

LIMIT_SECONDS = 0.1
_SAMPLE_SECONDS = 0.02
_OTHER = "code that no handler called"


class Watch(Meter):
    """Notes each time that no greenlet could be switched to for a while.

    A thread looks every 20 ms where the loop's thread stands. C code that keeps Python's lock
    keeps that thread out too; it comes in when the call returns, in the same line.

    Args:
        app: the filter.
        file: the filter's own; lines of libraries are not what its author wrote.
    """

    def __init__(self, app: Filter, file: str) -> None:
        self._since = time.perf_counter()
        self._delay_fd = _open_schedstat()
        self._delayed = self._delay()
        self._seen: tuple[float, str, int] | None = None  # since when, file, line
        self._stalls: dict[tuple[str, str, str, int], list[float]] = {}
        self._failures: dict[str, Counter[str]] = {}
        self._sources = Sources(file)
        self._file = file
        self._hub = gevent.get_hub()
        super().__init__()
        self.wrap(app)
        get_original("_thread", "start_new_thread")(self._sample, ())

    def call(self, entry: _Entry, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a function on a handler's account, and count how it fails."""
        try:
            return super().call(entry, fn, *args)
        except StopIteration:
            raise
        except BaseException as error:
            # Its text may hold what a client has sent: a password, say.
            self._failures.setdefault(entry.hook, Counter())[type(error).__name__] += 1
            raise

    def findings(self) -> dict[str, Any]:
        """Return what was seen, for JSON."""
        return {
            "handlers": self.times(),
            "failures": {hook: dict(counter) for hook, counter in self._failures.items()},
            "stalls": [
                {
                    "hook": hook,
                    "name": name,
                    "file": file,
                    "line": line,
                    "times": len(seconds),
                    "longest": max(seconds),
                }
                for (hook, name, file, line), seconds in self._stalls.items()
            ],
        }

    def _charge(self, left: Any) -> None:
        now, delayed = time.perf_counter(), self._delay()
        took = now - self._since - (delayed - self._delayed)
        if took >= LIMIT_SECONDS:
            entry = self._current.get(left)
            if entry is not None or left is not self._hub:
                self._note(entry, took)
        self._since, self._delayed = now, delayed
        super()._charge(left)

    def _note(self, entry: _Entry | None, seconds: float) -> None:
        seen = self._seen
        file, line = seen[1:] if seen is not None and seen[0] == self._since else (self._file, 0)
        hook, name = (entry.hook, entry.name) if entry is not None else ("", _OTHER)
        self._stalls.setdefault((hook, name, file, line), []).append(seconds)

    def _sample(self) -> None:
        sleep = get_original("time", "sleep")
        while True:
            sleep(_SAMPLE_SECONDS)
            since = self._since
            if time.perf_counter() - since >= LIMIT_SECONDS / 2:
                frame = sys._current_frames().get(self._thread)
                if (place := self._place(frame)) is not None and since == self._since:
                    self._seen = (since, *place)

    def _place(self, frame: FrameType | None) -> tuple[str, int] | None:
        """Return the innermost line that the filter's author wrote."""
        while frame is not None:
            if self._sources.is_own(frame.f_code.co_filename):
                return frame.f_code.co_filename, frame.f_lineno
            frame = frame.f_back
        return None

    def _delay(self) -> float:
        """Return how long this thread could have run, but other processes did."""
        if self._delay_fd is None:
            return 0.0
        return int(os.pread(self._delay_fd, 100, 0).split()[1]) / 1e9


def _open_schedstat() -> int | None:
    try:
        return os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
