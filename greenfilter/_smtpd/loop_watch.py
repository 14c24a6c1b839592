"""Notice handlers that keep the loop past their deadlines.

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

from .oracle import LoopBlocked

if TYPE_CHECKING:
    from types import FrameType

    from .._filter.handlers import Handler

_LONGEST_BEAT = 0.25
_SHORTEST_BEAT = 0.01
_BEATS = 4  # within the shortest deadline
_UNPATCHED = (
    "under greenfilter run it would wait in its greenlet alone, and on_error would answer. This "
    "process is not patched: use the fixture smtpd, or set greenfilter_patch = always in pytest's "
    "configuration; without pytest, call gevent.monkey.patch_all() before anything is imported"
)
_PATCHED = (
    "under greenfilter run on_error would answer, and all sessions wait. What it calls does not "
    "wait in its greenlet (a C library, or it computes): register it with thread=True; or it loops"
)


class LoopWatch:
    """A native thread that watches the loop of the thread it is started in.

    Args:
        handlers: whose code may be the one that blocks.
        limit: seconds for which a handler may; None for its deadline.

    Attributes:
        fault: the first that kept the loop for longer, or None.
    """

    def __init__(self, handlers: Iterable[Handler], limit: float | None = None) -> None:
        self.fault: LoopBlocked | None = None
        self._limits = {
            handler.fn.__code__: (f"{handler.hook} {handler.name}", limit or handler.deadline)
            for handler in handlers
            if hasattr(handler.fn, "__code__")
        }
        parts = [limit / _BEATS for _, limit in self._limits.values()]
        self._beat = max(_SHORTEST_BEAT, min([_LONGEST_BEAT, *parts]))
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
        """Stop watching. Never switches greenlets."""
        if self._running:
            self._running = False
            self._timer.close()

    def on_fault(self, handler: str, limit: float, where: str) -> None:
        """Keep what is wrong for the test. In the watching thread.

        Args:
            handler: its hook and name.
            limit: seconds that it has passed.
            where: ``file:line`` of its file where it is.
        """
        why = _PATCHED if monkey.is_module_patched("time") else _UNPATCHED
        self.fault = LoopBlocked(
            f"{handler} kept the loop at {where} past its deadline of {limit:g} s; {why}"
        )

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
        inside: list[FrameType] = []
        while frame is not None and frame.f_code not in self._limits:
            inside.append(frame)
            frame = frame.f_back
        if frame is None:
            return
        handler, limit = self._limits[frame.f_code]
        if silent > limit:
            file = frame.f_code.co_filename
            # Helpers of the author's are called from there; the library says less.
            own = next((each for each in inside if each.f_code.co_filename == file), frame)
            self.on_fault(handler, limit, f"{os.path.basename(file)}:{own.f_lineno}")
