"""A worker process: ``python -m greenfilter._supervisor.worker JSON``, started by the supervisor.

JSON holds ``fd`` (the socket to the supervisor), ``mark_fd`` (the page in which it leaves whose
code runs, see ``mark.py``), ``code_fd`` (the archive of accepted code, see ``snapshot.py``, or
null), ``accepted`` (whether it is to be read, or written), ``target``, ``args``, ``log_level`` and
``log_format``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, NoReturn

from .._process import garbage, log, mark, snapshot, stdio
from ..errors import UsageError

# The author's threads may not hold up the end.
_EXIT_SECONDS = 0.2
_MAX_TOLD = 5
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start(options: dict[str, Any]) -> None:
    """Run the filter until the supervisor closes the socket.

    Raises:
        UsageError: the filter cannot be loaded.
    """
    from .._waiting import patch

    patch()
    garbage.look_rarely()

    from .._filter import stock
    from .._filter.load import load
    from .._runtime import Runtime

    page = mark.take(options["mark_fd"])
    os.close(options["mark_fd"])
    fd = options["fd"]
    os.set_inheritable(fd, False)
    stdio.keep_from_children((fd, fd))
    target = options["target"]
    code = _accepted(options) or snapshot.take(stock.file_of(target) or target)
    code.install()
    app = load(target, options["args"], code)
    if not code.complete:
        _keep(code, options["code_fd"])
    try:
        Runtime(app, (fd, fd), page=page).run()
    except BaseException:
        # A handler has thrown it into the hub. What is left of the loop serves nobody.
        log.logger.exception("the loop was ended from within")
        os._exit(1)
    end_soon()


def _accepted(options: dict[str, Any]) -> snapshot.Snapshot | None:
    """Return the code that another worker has loaded."""
    if not options["accepted"]:
        return None
    try:
        return snapshot.read(options["code_fd"])
    except (OSError, ValueError, LookupError) as error:
        log.logger.error("the accepted code cannot be read (%s); what is on disk is loaded", error)
        return None


def _keep(snapshot: snapshot.Snapshot, fd: int | None) -> None:
    """Hand on the code that has been loaded."""
    if snapshot.left_out:
        log.logger.warning(
            "not kept for workers that are started later, which take it from disk: %s",
            "; ".join(snapshot.left_out[:_MAX_TOLD]),
        )
    if fd is None:
        return
    try:
        snapshot.write(fd)
    except OSError as error:
        log.logger.error("the code cannot be kept (%s); later workers load it from disk", error)
        os.ftruncate(fd, 0)
    os.close(fd)


def end_soon(seconds: float = _EXIT_SECONDS) -> None:
    """End the process for good after a while, whatever threads of the author's still run."""
    from gevent.monkey import get_original

    sleep = get_original("time", "sleep")

    def end() -> None:
        sleep(seconds)
        os._exit(0)

    get_original("_thread", "start_new_thread")(end, ())


def ignore_signals(*, tell: bool = True) -> None:
    """Ignore signals: only EOF may end a filter, since smtpd would exit with it.

    Children do not ignore them: with SIG_IGN, which programs inherit, an author could not
    terminate what he has started.

    Args:
        tell: log each one.
    """

    def ignore(number: int, frame: object) -> None:
        if tell:
            log.logger.warning(
                "%s ignored: %s",
                signal.Signals(number).name,
                "no supervisor is there to load the code again"
                if number == signal.SIGHUP
                else "stop smtpd instead",
            )

    def heed() -> None:
        for number in _IGNORED:
            if signal.getsignal(number) is ignore:
                signal.signal(number, signal.SIG_DFL)

    for number in _IGNORED:
        signal.signal(number, ignore)
    os.register_at_fork(after_in_child=heed)


def main() -> NoReturn:
    """Run the process."""
    options = json.loads(sys.argv[1])
    stdio.set_up_text()
    log.set_up(options["log_level"], options["log_format"])
    ignore_signals(tell=False)
    try:
        start(options)
    except UsageError as error:
        print(f"greenfilter: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
