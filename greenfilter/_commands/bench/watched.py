"""A filter that is watched: ``python -m greenfilter._commands.bench.watched JSON``.

JSON holds ``target``, ``args``, ``out``, the file for what is seen, and ``trace``, the file for the
stack when SIGUSR2 comes.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
from typing import NoReturn

from ..._process import log, stdio
from ..._supervisor.worker import end_soon
from ...errors import UsageError


def main() -> NoReturn:
    """Run the filter until the socket is closed, then write what was seen."""
    options = json.loads(sys.argv[1])
    log.set_up("error")
    fds = stdio.take()
    trace = open(options["trace"], "wb")  # noqa: SIM115
    faulthandler.register(signal.SIGUSR2, trace, all_threads=False)

    from ..._waiting import patch

    patch()

    from ..._filter.load import file_of, load
    from ..._runtime import Runtime
    from .watch import Watch

    try:
        app = load(options["target"], options["args"])
    except UsageError as error:
        print(f"greenfilter: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    app.auto_thread = False  # each call is to be seen where it was registered to run
    places = [each.where.rpartition(":")[0] for each in app._registry.handlers() if each.where]
    watch = Watch(app, file_of(options["target"]) or next(iter(places), sys.argv[0]))
    Runtime(app, fds).run()
    with open(options["out"], "w") as file:
        json.dump(watch.findings(), file)
    end_soon()
    sys.exit(0)


if __name__ == "__main__":
    main()
