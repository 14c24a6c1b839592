"""Callbacks without which a loop is deaf or has no clock."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any

from .._process.log import logger

# sysexits.h: an internal error.
_EX_SOFTWARE = 70


class Vital:
    """Wraps what gevent calls, which stops a watcher for good when its callback raises.

    A worker whose own code has raised there ends at once, and is replaced: what it had half done
    nobody knows. Where nobody replaces it, the loop goes on.

    Args:
        supervised: whether there is somebody who replaces this process.
    """

    def __init__(self, supervised: bool) -> None:
        self._supervised = supervised

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., None]:
        """Wrap a callback."""

        def call(*args: Any) -> None:
            try:
                fn(*args)
            except BaseException as error:
                self.fail(error)

        return call

    def fail(self, error: BaseException) -> None:
        """Log what was raised, as far as there is memory for it, and end if that is possible."""
        try:
            where = traceback.extract_tb(error.__traceback__)[-1:]
            at = f" at {where[0].filename}:{where[0].lineno}" if where else ""
            end = "this worker ends" if self._supervised else "it goes on"
            logger.critical("%s in the loop%s: %s; %s", type(error).__name__, at, error, end)
        except BaseException:
            if self._supervised:
                os.write(2, b"critical: no memory in the loop; this worker ends\n")
        finally:
            if self._supervised:
                os._exit(_EX_SOFTWARE)
