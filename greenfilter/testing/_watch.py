"""Notices a handler that keeps the loop past its deadline.

``greenfilter run`` patches the standard library, so that what blocks waits in its greenlet and is
answered for by ``on_error`` when it is late. A test process may not be patched: the handler would
take its time there, then decide, and the test would show the opposite of what mail gets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING

import gevent
from gevent import monkey

from ._oracle import LoopBlocked

if TYPE_CHECKING:
    from types import FrameType

    from .._handlers import Handler

_LONGEST_BEAT = 0.25
_SHORTEST_BEAT = 0.01
_BEATS = 4  # within the shortest deadline
_UNPATCHED = (
    "under greenfilter run it would wait in its greenlet alone, and on_error would answer. This "
    "process is not patched: use the fixture smtpd, or set greenfilter_patch = always in pytest's "
    "configuration; without pytest, call gevent.monkey.patch_all() before anything is imported"
)
_PATCHED = (
    "what it calls does not wait in its greenlet (a C library, or it computes): under greenfilter "
    "run on_error would answer, and all sessions wait. Register it with thread=True"
)


class LoopWatch:
    """A native thread that watches the loop of the thread it is started in.

    Args:
        handlers: whose code may be the one that blocks.

    Attributes:
        fault: the first that did, or None.
    """

    def __init__(self, handlers: Iterable[Handler]) -> None:
        self.fault: LoopBlocked | None = None
        self._handlers = {
            handler.fn.__code__: handler for handler in handlers if hasattr(handler.fn, "__code__")
        }
        deadlines = [handler.deadline for handler in self._handlers.values()]
        self._beat = max(_SHORTEST_BEAT, min([_LONGEST_BEAT, *(d / _BEATS for d in deadlines)]))
        self._running = False

    def start(self) -> None:
        """Begin to watch. Never switches greenlets."""
        self._running = True
        self._thread = monkey.get_original("threading", "get_ident")()
        self._seen = perf_counter()
        self._timer = gevent.get_hub().loop.timer(self._beat, self._beat)
        self._timer.start(self._on_beat)
        monkey.get_original("_thread", "start_new_thread")(self._watch, ())

    def stop(self) -> None:
        """Watch no more. Never switches greenlets."""
        if self._running:
            self._running = False
            self._timer.close()

    def _on_beat(self) -> None:
        self._seen = perf_counter()

    def _watch(self) -> None:
        sleep = monkey.get_original("time", "sleep")
        before = None
        while self._running and self.fault is None:
            sleep(self._beat)
            seen = self._seen
            silent = perf_counter() - seen
            # Twice the same: else a pause of the whole process would be a handler's fault.
            if silent > self._beat and seen == before:
                self._judge(silent)
            before = seen

    def _judge(self, silent: float) -> None:
        frame: FrameType | None = sys._current_frames().get(self._thread)
        while frame is not None and frame.f_code not in self._handlers:
            frame = frame.f_back
        if frame is None:
            return
        handler = self._handlers[frame.f_code]
        if silent > handler.deadline:
            where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
            why = _PATCHED if monkey.is_module_patched("time") else _UNPATCHED
            self.fault = LoopBlocked(
                f"{handler.hook} {handler.name} kept the loop at {where} past its deadline of "
                f"{handler.deadline:g} s; {why}"
            )
