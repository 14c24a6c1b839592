"""Tells, once for each handler, which one keeps the loop busy so that all sessions wait."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import gevent
from gevent import monkey

from .._handlers import Handler
from .._log import logger

_BEAT = 0.25
_TOO_LONG = 1.0


class Monitor:
    """A native thread that watches the loop of the thread it is made in.

    Args:
        handlers: whose code may be the one that blocks.
    """

    def __init__(self, handlers: Iterable[Handler]) -> None:
        self._handlers = {h.fn.__code__: h for h in handlers if hasattr(h.fn, "__code__")}
        self._told: set[Handler | None] = set()
        self._thread = monkey.get_original("threading", "get_ident")()
        self._sleep = monkey.get_original("time", "sleep")
        self._timer = gevent.get_hub().loop.timer(_BEAT, _BEAT)
        self._beat = time.monotonic()
        self._running = True

    def start(self) -> None:
        """Begin to watch."""
        self._timer.start(self._on_beat)
        monkey.get_original("_thread", "start_new_thread")(self._watch, ())

    def stop(self) -> None:
        """Watch no more."""
        self._running = False
        self._timer.close()

    def _on_beat(self) -> None:
        self._beat = time.monotonic()

    def _watch(self) -> None:
        while self._running:
            self._sleep(_BEAT)
            if time.monotonic() - self._beat > _TOO_LONG:
                self._tell(self._culprit())

    def _culprit(self) -> Handler | None:
        frame = sys._current_frames().get(self._thread)
        while frame is not None:
            handler = self._handlers.get(frame.f_code)
            if handler is not None:
                return handler
            frame = frame.f_back
        return None

    def _tell(self, handler: Handler | None) -> None:
        if handler is not None and handler not in self._told:
            self._told.add(handler)
            logger.warning(
                "%r has kept the loop busy for over %g s, and all sessions wait for it; "
                "register it with thread=True (told once)",
                handler,
                _TOO_LONG,
            )
