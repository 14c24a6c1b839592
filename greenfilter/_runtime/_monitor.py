"""Sees which handler keeps the loop, so that all sessions wait, and at which line of code."""

from __future__ import annotations

import linecache
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType

import gevent
from gevent import monkey

from .._handlers import Handler
from .._log import logger

_BEAT = 0.05
# Seconds without a beat after which the loop counts as kept.
_KEPT = 0.1
# Seconds after which it is said, whether or not the handler comes to an end.
_TOO_LONG = 1.0
# A thread that uses this part of the time computes: it does not wait.
_COMPUTES = 0.2


class Monitor:
    """A native thread that watches the loop of the thread it is made in.

    Args:
        handlers: whose code may keep the loop.
        on_kept: called in the loop, once it turns again, with the handler that has kept it for
            a tenth of a second or longer, and the line of code.
        urgent: called in the monitor's thread as long as the loop is kept.
    """

    def __init__(
        self,
        handlers: Iterable[Handler],
        on_kept: Callable[[Handler, str], None],
        urgent: Callable[[], None],
    ) -> None:
        self._handlers = {h.fn.__code__: h for h in handlers if hasattr(h.fn, "__code__")}
        self._on_kept = on_kept
        self._urgent = urgent
        self._told: set[Handler | None] = set()
        self._thread = monkey.get_original("threading", "get_ident")()
        self._sleep = monkey.get_original("time", "sleep")
        self._loop = gevent.get_hub().loop
        self._timer = self._loop.timer(_BEAT, _BEAT)
        self._beat = time.monotonic()
        self._seen = 0.0  # the beat after which the loop was last seen to be kept
        self._since = 0.0  # when that was
        self._used = 0.0  # seconds of processor time that the loop's thread had used by then
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
            late = time.monotonic() - self._beat - _BEAT
            if late > _KEPT and self._running:
                self._look(late)

    def _look(self, late: float) -> None:
        """See who keeps the loop; called again and again for as long as it is kept."""
        self._urgent()
        handler, place = self._culprit()
        if self._seen != self._beat:
            self._seen, self._since = self._beat, time.monotonic()
            self._used = _processor_time(self._thread)
            if handler is not None:
                self._loop.run_callback_threadsafe(self._on_kept, handler, place)
        elif late > _TOO_LONG and handler is not None and handler not in self._told:
            self._told.add(handler)
            used = _processor_time(self._thread) - self._used
            passed = time.monotonic() - self._since
            self._tell(handler, place, used > passed * _COMPUTES)

    def _culprit(self) -> tuple[Handler | None, str]:
        """Return the handler that runs, and the line of its file that it is at."""
        frame = sys._current_frames().get(self._thread)
        frames: list[FrameType] = []
        found: Handler | None = None
        file = None
        while frame is not None:
            frames.append(frame)
            handler = self._handlers.get(frame.f_code)
            if handler is not None:  # the outermost: a handler may call another one's function
                found, file = handler, frame.f_code.co_filename
            frame = frame.f_back
        places = [each for each in frames if each.f_code.co_filename == file]
        return found, _place(places[0]) if places else ""

    def _tell(self, handler: Handler, place: str, computes: bool) -> None:
        if computes:
            logger.warning(
                "%r has kept the loop for over %g s, and all sessions wait for it: it computes, or "
                "it loops without an end, at %s (told once)",
                *(handler, _TOO_LONG, place),
            )
        else:
            logger.warning(
                "%r has kept the loop for over %g s, and all sessions wait for it: it waits at %s; "
                "register it with thread=True (told once)",
                *(handler, _TOO_LONG, place),
            )


def _place(frame: FrameType) -> str:
    """Return the line of code that a frame is at: its file and number, and its text."""
    file, number = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, number).strip()
    return f"{file}:{number} ({source})" if source else f"{file}:{number}"


def _processor_time(thread: int) -> float:
    """Return the seconds of processor time that a thread has used; 0 where that can't be told."""
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    except (AttributeError, OSError):
        return 0.0
