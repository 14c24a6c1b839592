"""Handlers that kept the loop, and run in a thread that all of them share from then on.

Their author did not write them for several threads at once, so they run one at a time. What was
made in the loop's thread may not work in another one (a connection of sqlite3, say): at its first
error of a kind that it did not have before, a handler goes back to the loop for good.
"""

from __future__ import annotations

import dis
import sqlite3
from collections.abc import Callable
from types import TracebackType
from typing import Any

from greenlet import GreenletExit

from .._handlers import Handler
from .._log import logger
from ..errors import GreenfilterError
from ._threads import Threads

# A handler is moved when it has kept the loop this often.
_TIMES = 3
# What a generator does goes on in the loop wherever it was made.
_STAYS = ("lines", "tap")


class Moved:
    """The handlers that were moved, and their thread.

    Args:
        errors_of: the kinds of errors that each handler has failed with so far.
        on_move: called when a handler is moved.
        on_return: called when it goes back to the loop.

    Attributes:
        handlers: those that run in the thread.
        threads: the thread, and what replaces it while it hangs.
    """

    def __init__(
        self,
        errors_of: dict[Handler, set[type[BaseException]]],
        on_move: Callable[[Handler], None],
        on_return: Callable[[Handler], None],
    ) -> None:
        self.handlers: set[Handler] = set()
        self.threads = Threads(1)
        self._errors_of = errors_of
        self._on_move = on_move
        self._on_return = on_return
        self._kept: dict[Handler, int] = {}
        self._stays: set[Handler] = set()

    def note(self, handler: Handler, place: str) -> None:
        """Take note that a handler has kept the loop, and move it when that was often enough.

        Args:
            handler: the handler. One with ``thread=True`` is never seen to keep the loop.
            place: the line of code that did.
        """
        if handler in self.handlers or handler in self._stays:
            return
        times = self._kept[handler] = self._kept.get(handler, 0) + 1
        if times < _TIMES:
            return
        if handler.hook in _STAYS:
            self._stays.add(handler)
            logger.warning(
                "%r has kept the loop %d times, and all sessions wait for it: %s; it can't be moved"
                " to a thread: read the lines with @app.message(thread=True) instead",
                *(handler, times, place),
            )
            return
        self.handlers.add(handler)
        self._on_move(handler)
        logger.warning(
            "%r has kept the loop %d times, and all sessions waited for it: %s; from now on it "
            "runs in a thread, one call at a time. Register it with thread=True to have several "
            "run at once; Filter(auto_thread=False) leaves it in the loop",
            *(handler, times, place),
        )

    def call(self, handler: Handler, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a moved handler in the thread, after those that were called before.

        Switches greenlets. The arguments are those of the handler.

        Raises:
            BaseException: whatever it raises.
        """
        try:
            return self.threads.call(fn, *args)
        except (GreenfilterError, GreenletExit):
            raise
        except BaseException as error:
            if handler not in self.handlers or type(error) in self._errors_of.get(handler, ()):
                raise
            again = fn is handler.fn and _had_no_effect(handler, error)
            self._take_back(handler, error, again)
            if again:
                return fn(*args)
            raise

    def _take_back(self, handler: Handler, error: BaseException, again: bool) -> None:
        self.handlers.discard(handler)
        self._stays.add(handler)
        self._on_return(handler)
        logger.warning(
            "%r goes back to the loop, where all sessions wait for it: in a thread it failed with "
            "%s; %s",
            handler,
            type(error).__name__,
            "it is called again" if again else "this request is answered by its policy",
        )


def _had_no_effect(handler: Handler, error: BaseException) -> bool:
    """Return whether a call has certainly changed nothing before it failed.

    It has not if sqlite3 has refused another thread, which it does before all else, and if
    nothing was called or stored before that.
    """
    if not isinstance(error, sqlite3.ProgrammingError) or "thread" not in str(error):
        return False
    trace: TracebackType | None = error.__traceback__
    code = getattr(handler.fn, "__code__", None)
    while trace is not None and trace.tb_frame.f_code is not code:
        trace = trace.tb_next
    if trace is None or trace.tb_next is not None:
        return False
    return not any(
        instruction.offset < trace.tb_lasti
        and instruction.opname.startswith(("CALL", "STORE_", "DELETE_", "IMPORT_", "JUMP_BACK"))
        and not instruction.opname.startswith("STORE_FAST")
        for instruction in dis.get_instructions(handler.fn)
    )
