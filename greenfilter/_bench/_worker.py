"""A filter whose handlers are timed: ``python -m greenfilter._bench._worker JSON``.

JSON holds ``target``, ``args``, and ``out``, the file for the times.
"""

from __future__ import annotations

import json
import sys
from typing import NoReturn

from .. import _log, _stdio
from .._worker import end_soon
from ..errors import UsageError


def main() -> NoReturn:
    """Run the filter until the socket is closed, then write the times."""
    options = json.loads(sys.argv[1])
    _log.set_up("warning")
    fds = _stdio.take()

    from .._waiting import patch

    patch()

    from .._load import load
    from .._runtime import Runtime
    from ._meter import Meter

    try:
        app = load(options["target"], options["args"])
    except UsageError as error:
        print(f"greenfilter: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    meter = Meter()
    meter.wrap(app)
    Runtime(app, fds).run()
    with open(options["out"], "w") as file:
        json.dump(meter.times(), file)
    end_soon()
    sys.exit(0)


if __name__ == "__main__":
    main()
