"""``greenfilter run``."""

from __future__ import annotations

import os
import signal
import sys

from .. import _log, _stdio
from ..errors import UsageError

# smtpd waits for its filters when it ends; threads of the author's may not hold it up.
_EXIT_SECONDS = 0.5


def run(target: str, args: list[str], log_level: str, log_format: str) -> None:
    """Run a filter on fds 0 and 1 until smtpd closes them.

    Raises:
        UsageError: the filter cannot be loaded, or nobody is there to talk to.
    """
    if os.isatty(0):
        raise UsageError(
            "smtpd starts this, with the protocol on standard input; to look at a filter: "
            f"greenfilter check {target}"
        )
    _log.set_up(log_level, log_format)
    fds = _stdio.take()
    _ignore_signals()

    from gevent import monkey

    monkey.patch_all()

    from .._load import load
    from .._runtime import Runtime

    Runtime(load(target, args), fds).run()
    _exit_soon(monkey)


def _ignore_signals() -> None:
    """Only EOF ends a filter: smtpd would exit with it."""

    def ignore(number: int, frame: object) -> None:
        _log.logger.warning("%s ignored: stop smtpd instead", signal.Signals(number).name)

    signal.signal(signal.SIGTERM, ignore)
    signal.signal(signal.SIGINT, ignore)


def _exit_soon(monkey: object) -> None:
    """End the process for good, whatever threads or exit handlers of the author's still run."""
    get_original = monkey.get_original  # type: ignore[attr-defined]
    sleep = get_original("time", "sleep")

    def end() -> None:
        sleep(_EXIT_SECONDS)
        os._exit(0)

    get_original("_thread", "start_new_thread")(end, ())
    sys.exit(0)
