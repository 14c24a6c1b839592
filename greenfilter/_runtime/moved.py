"""Handlers that kept the loop, and run in a thread that all of them share from then on.

Their author did not write them for several threads at once, so they run one at a time. What was
made in the loop's thread may not work in another one (a connection of sqlite3, say): at its first
error of a kind that it did not have before, a handler goes back to the loop for good. So does one
that starts greenlets, which have no loop to run in there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from gevent._hub_local import get_hub_if_exists
from gevent.monkey import get_original
from greenlet import GreenletExit

from .._filter.handlers import Handler
from .._process.log import logger
from ..errors import GreenfilterError, HandlerTimeout
from .effects import had_no_effect, is_of_another_thread
from .monitor import stands_at
from .threads import Threads

# A handler is moved when it has kept the loop this often within this many seconds: a machine that
# stands still now and then should not cost a handler its greenlets.
_TIMES = 3
_WITHIN = 3600.0
# What cannot be moved, by the first word of its hook, and what to do instead. A generator goes on
# in the loop wherever it was made.
_STAYS = {
    "lines": "read them with @app.message(thread=True) instead",
    "tap": "read the message with @app.message(thread=True) instead",
    "local_session": "have a handler with thread=True do what takes long instead",
    "local_message": "have a handler with thread=True do what takes long instead",
}
_NOT_MADE: Final = object()
_get_ident: Callable[[], int] = get_original("_thread", "get_ident")


class Moved:
    """The handlers that were moved, and their thread.

    Args:
        threads: a pool of one thread.
        errors_of: the kinds of errors that each handler has failed with so far.

    Attributes:
        on_change: called when a handler was moved, or has gone back to the loop.
        handlers: those that run in the thread.
        threads: the thread, and what replaces it while it hangs.
    """

    def __init__(
        self,
        threads: Threads,
        errors_of: dict[Handler, set[type[BaseException]]],
    ) -> None:
        self.handlers: set[Handler] = set()
        self.threads = threads
        self.on_change: Callable[[], None] = lambda: None
        self._errors_of = errors_of
        self._kept: dict[Handler, deque[float]] = {}
        self._stays: set[Handler] = set()

    def note(self, handler: Handler, place: str) -> None:
        """Take note that a handler has kept the loop, and move it when that was often enough.

        Args:
            handler: the handler. One with ``thread=True`` is never seen to keep the loop.
            place: the line of code that did.
        """
        if handler in self.handlers or handler in self._stays:
            return
        times = self._kept.setdefault(handler, deque(maxlen=_TIMES))
        times.append(time.monotonic())
        if len(times) < _TIMES or times[-1] - times[0] > _WITHIN:
            return
        del self._kept[handler]
        instead = _STAYS.get(handler.hook.partition(" ")[0])
        if instead is not None:
            self._stays.add(handler)
            logger.warning(
                "%r has kept the loop %d times, and all sessions wait for it: %s; it can't be moved"
                " to a thread: %s",
                *(handler, _TIMES, place, instead),
            )
            return
        self.handlers.add(handler)
        self.on_change()
        logger.warning(
            "%r has kept the loop %d times, and all sessions waited for it: %s; from now on it "
            "runs in a thread, one call at a time. Register it with thread=True to have several "
            "run at once; Filter(auto_thread=False) leaves it in the loop",
            *(handler, _TIMES, place),
        )

    def call(self, sid: bytes, handler: Handler, fn: Callable[..., Any], *args: Any) -> Any:
        """Call a moved handler in the thread, after those that were called before.

        Switches greenlets.

        Args:
            sid: of the session that it is called for.
            handler: the handler.
            fn: what is called for it.
            args: its arguments.

        Raises:
            BaseException: whatever it raises.
        """
        inside: list[int] = []
        try:
            result = self.threads.call(sid, handler.report, self._make, handler, inside, fn, args)
        except (GreenfilterError, GreenletExit) as error:
            if inside and isinstance(error, HandlerTimeout):
                place = stands_at(inside[0], handler)
                logger.warning("%r does not end: its thread is at %s", handler, place)
            raise
        except BaseException as error:
            if handler in self.handlers:  # it had such an error before
                raise
            again = fn is handler.fn and had_no_effect(handler.fn, error)
            then = "it is called again" if again else "this request is answered by its policy"
            self._take_back(handler, f"in a thread it failed with {type(error).__name__}; {then}")
            if again:
                return fn(*args)
            raise
        if handler not in self.handlers:
            self._take_back(handler, "it starts greenlets, which have no loop in a thread")
        return fn(*args) if result is _NOT_MADE else result

    def _make(
        self, handler: Handler, inside: list[int], fn: Callable[..., Any], args: tuple[Any, ...]
    ) -> Any:
        """Make a call, in the thread, unless the handler has gone back to the loop by then."""
        if handler not in self.handlers:
            return _NOT_MADE
        inside.append(_get_ident())
        try:
            return fn(*args)
        except (GreenfilterError, GreenletExit):
            raise
        except BaseException as error:
            if is_of_another_thread(error) or type(error) not in self._errors_of.get(handler, ()):
                self.handlers.discard(handler)  # here: those that wait are not to fail as well
            raise
        finally:
            self._run_greenlets(handler)
            inside.clear()

    def _run_greenlets(self, handler: Handler) -> None:
        """Run the greenlets that a call has started, in the thread."""
        hub = get_hub_if_exists()
        if hub is not None and hub.loop.activecnt:
            self.handlers.discard(handler)
            hub.join(timeout=handler.deadline)

    def _take_back(self, handler: Handler, why: str) -> None:
        if handler in self._stays:
            return
        self._stays.add(handler)
        self.on_change()
        logger.warning("%r goes back to the loop, where all sessions wait for it: %s", handler, why)
