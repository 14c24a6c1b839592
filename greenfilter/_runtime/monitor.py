"""Sees which handler keeps the loop, so that all sessions wait, and at which line of code."""

from __future__ import annotations

import linecache
import sys
import time
from collections.abc import Callable
from types import FrameType

import gevent
from gevent import monkey

from .._filter.handlers import Handler
from .._process.log import Once, logger
from .._process.python import OWN_FILES, is_installed, is_stdlib
from .runners import Runner

_BEAT = 0.05
# Seconds without a beat after which the loop counts as kept.
_KEPT = 0.1
# Seconds after which it is said, whether or not the handler comes to an end.
_TOO_LONG = 1.0
# A thread that uses this part of the time computes: it does not wait.
_COMPUTES = 0.2


class Monitor:
    """A native thread that watches the loop of the thread it is made in.

    The loop is kept if it has missed its beat, and one runner was seen twice to be in the author's
    code meanwhile. Many runners that each take a moment, or a machine that stood still, are not
    taken for a handler that blocks.

    Args:
        inside: finds the runner that runs the author's code right now.
        on_kept: called in the monitor's thread with the handler that has kept the loop for a tenth
            of a second or longer, and the line of code.
        urgent: called in the monitor's thread as long as the loop is kept.
    """

    def __init__(
        self,
        inside: Callable[[], Runner | None],
        on_kept: Callable[[Handler, str], None],
        urgent: Callable[[], None],
    ) -> None:
        self._inside = inside
        self._on_kept = on_kept
        self._urgent = urgent
        self._once = Once()
        self._thread = monkey.get_original("threading", "get_ident")()
        self._sleep = monkey.get_original("time", "sleep")
        self._timer = gevent.get_hub().loop.timer(_BEAT, _BEAT)
        self._beat = time.monotonic()
        # The beat after which somebody was last seen to keep the loop, who, what he runs, since
        # when, and the processor time that the loop's thread had used by then.
        self._seen: tuple[float, Runner | None, Handler | None] = (0.0, None, None)
        self._since = self._used = 0.0
        self._noted = 0.0  # the beat after which that was last passed on
        self._running = True

    def start(self) -> None:
        """Begin to watch."""
        self._timer.start(self._on_beat)
        monkey.get_original("_thread", "start_new_thread")(self._watch, ())

    def stop(self) -> None:
        """Stop watching."""
        self._running = False
        self._timer.close()

    def _on_beat(self) -> None:
        self._beat = time.monotonic()

    def _watch(self) -> None:
        pause = _BEAT
        while self._running:
            self._sleep(pause)
            late = time.monotonic() - self._beat - _BEAT
            pause = _BEAT
            if late > _KEPT / 2 and self._running:
                pause /= 2
                self._look(late)

    def _look(self, late: float) -> None:
        """Look who keeps the loop; called again and again for as long as it is kept."""
        self._urgent()
        beat, runner = self._beat, self._inside()
        handler = runner.running if runner is not None else None
        if runner is None or handler is None:
            return
        if self._seen != (beat, runner, handler):
            self._seen, self._since = (beat, runner, handler), time.monotonic()
            self._used = _processor_time(self._thread)
        elif late > _KEPT and self._noted != beat:
            self._noted = beat
            place = stands_at(self._thread, handler)
            self._on_kept(handler, place)
        elif late > _TOO_LONG and self._once.is_first(handler):
            used = _processor_time(self._thread) - self._used
            passed = time.monotonic() - self._since
            self._tell(handler, stands_at(self._thread, handler), used > passed * _COMPUTES)

    def _tell(self, handler: Handler, place: str, computes: bool) -> None:
        if computes:
            logger.warning(
                "%r has kept the loop for over %g s, and all sessions wait for it: it computes, or "
                "it loops without an end, at %s (logged once)",
                *(handler, _TOO_LONG, place),
            )
        else:
            logger.warning(
                "%r has kept the loop for over %g s, and all sessions wait for it: it waits at %s; "
                "register it with thread=True (logged once)",
                *(handler, _TOO_LONG, place),
            )


def stands_at(thread: int, handler: Handler) -> str:
    """Return the line of the author's code that a thread is at in a handler.

    Args:
        thread: its identity, as of threading.get_ident().
        handler: whose file is the author's, wherever it is.

    Returns:
        Its file and number, and its text.
    """
    own = handler.where.rpartition(":")[0] if handler.where else None
    innermost = frame = sys._current_frames().get(thread)
    while frame is not None:
        file = frame.f_code.co_filename
        if file == own or not _is_library(file):
            return _place(frame)
        frame = frame.f_back
    return _place(innermost) if innermost is not None else "?"


def _is_library(file: str) -> bool:
    """Return whether a file is not an author's."""
    return file.startswith((OWN_FILES, "<")) or is_installed(file) or is_stdlib(file)


def _place(frame: FrameType) -> str:
    file, number = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, number).strip()
    return f"{file}:{number} ({source})" if source else f"{file}:{number}"


def _processor_time(thread: int) -> float:
    """Return the seconds of processor time that a thread has used; 0 where it is not known."""
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    except (AttributeError, OSError):
        return 0.0
