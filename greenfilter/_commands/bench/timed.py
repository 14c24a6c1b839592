"""A filter whose handlers are timed: ``python -m greenfilter._commands.bench.timed JSON``.

JSON holds ``target``, ``args``, and ``out``, the file for the times.
"""

from __future__ import annotations

import json
import os
import sys
from typing import NoReturn

from ..._process import log, stdio
from ..._supervisor.worker import end_soon
from ...errors import UsageError

_HANG_SECONDS = 3.0


def main() -> NoReturn:
    """Run the filter until the socket is closed, then write the times."""
    options = json.loads(sys.argv[1])
    log.set_up("warning")
    fds = stdio.take()

    from ..._waiting import patch

    patch()

    from ..._filter.load import load
    from ..._runtime import Runtime
    from ..._smtpd.loop_watch import LoopWatch
    from .meter import Meter

    class EndAtHang(LoopWatch):
        """Says which line a handler is at that keeps the loop, and ends the run."""

        def on_fault(self, handler: str, limit: float, where: str) -> None:
            text = (
                f"{handler} has kept the loop for {limit:g} s at {where}: it "
                "calls what does not wait in its greenlet (register it with thread=True), or it "
                "loops"
            )
            os.write(2, f"{text}\n".encode())
            os._exit(1)

    try:
        app = load(options["target"], options["args"])
    except UsageError as error:
        print(f"greenfilter: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    watch = EndAtHang(app._registry.handlers(), _HANG_SECONDS)
    meter = Meter()
    meter.wrap(app)
    watch.start()
    Runtime(app, fds).run()
    watch.stop()
    with open(options["out"], "w") as file:
        json.dump(meter.times(), file)
    end_soon()
    sys.exit(0)


if __name__ == "__main__":
    main()
