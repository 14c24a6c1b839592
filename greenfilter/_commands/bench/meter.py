"""Time handlers from within: how long each took, and how long the processor worked for it.

Greenlets share a thread, so processor time is charged at every switch: to the handler, if any,
whose greenlet is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import greenlet
from gevent.monkey import get_original

from ..._filter.app import Filter
from ..._filter.handlers import Handler

_thread_id = get_original("_thread", "get_ident")


class _Entry:
    """One handler's times."""

    __slots__ = ("calls", "cpu_seconds", "hook", "name", "seconds")

    def __init__(self, handler: Handler) -> None:
        self.hook = handler.hook
        self.name = handler.name
        self.calls = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0


class Meter:
    """Times the handlers of a filter. For the thread that it was made in, and its pool."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._current: dict[Any, _Entry | None] = {}
        self._thread = _thread_id()
        self._charged = time.thread_time()
        greenlet.settrace(self._switched)

    def wrap(self, app: Filter) -> None:
        """Put a timer around every handler. Before the filter runs."""
        for handler in app._registry.handlers():
            entry = _Entry(handler)
            self._entries.append(entry)
            handler.fn = self._timed(handler.fn, entry, handler.hook == "lines")

    def times(self) -> list[dict[str, Any]]:
        """Return what was measured, as :class:`~.figures.HandlerTime` has it."""
        return [
            {name: getattr(entry, name) for name in _Entry.__slots__} for entry in self._entries
        ]

    def call(self, entry: _Entry, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a function on a handler's account."""
        if _thread_id() != self._thread:
            return self._call_in_pool(entry, fn, *args)
        own, begun = greenlet.getcurrent(), time.perf_counter()
        self._charge(own)
        outer = self._current.get(own)
        self._current[own] = entry
        try:
            return fn(*args)
        finally:
            self._charge(own)
            if outer is None:
                del self._current[own]
            else:
                self._current[own] = outer
            entry.calls += 1
            entry.seconds += time.perf_counter() - begun

    @staticmethod
    def _call_in_pool(entry: _Entry, fn: Callable[..., Any], *args: Any) -> Any:
        begun, cpu = time.perf_counter(), time.thread_time()
        try:
            return fn(*args)
        finally:
            entry.calls += 1
            entry.seconds += time.perf_counter() - begun
            entry.cpu_seconds += time.thread_time() - cpu

    def _timed(self, fn: Callable[..., Any], entry: _Entry, streams: bool) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            if not streams:
                return self.call(entry, fn, *args)
            given = fn(*args)
            return _TimedLines(self, entry, given) if hasattr(given, "__next__") else given

        return timed

    def _switched(self, event: str, args: Any) -> None:
        if event in ("switch", "throw"):
            self._charge(args[0])

    def _charge(self, left: Any) -> None:
        now = time.thread_time()
        entry = self._current.get(left)
        if entry is not None:
            entry.cpu_seconds += now - self._charged
        self._charged = now


class _TimedLines:
    """A generator of lines, each of which is timed."""

    def __init__(self, meter: Meter, entry: _Entry, lines: Iterator[bytes]) -> None:
        self._call = meter.call
        self._entry = entry
        self._lines = lines

    def __iter__(self) -> _TimedLines:
        return self

    def __next__(self) -> bytes:
        line: bytes = self._call(self._entry, next, self._lines)
        return line
