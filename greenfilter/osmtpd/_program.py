"""osmtpd_run(), and the ways out of a program."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from ._answers import formatted
from ._app import app


def osmtpd_run() -> NoReturn:
    """Run the filter.

    In a script this starts the file again under ``greenfilter run``, in place of this process.
    While greenfilter loads a file, it ends the execution of the file; the filter runs then.

    Raises:
        UsageError: it is called neither by a script nor while greenfilter loads a file.
    """
    app.run()


def osmtpd_err(eval: int, fmt: str, *args: Any) -> NoReturn:
    """Print a message and the error text of the OSError being handled, and exit.

    In a callback, this ends the callback only.

    Args:
        eval: exit status.
        fmt: a format of printf(3) for ``args``.
        args: for ``fmt``.

    Raises:
        SystemExit: always.
    """
    error = sys.exc_info()[1]
    text = formatted(fmt, args)
    osmtpd_errx(eval, "%s", f"{text}: {error.strerror}" if isinstance(error, OSError) else text)


def osmtpd_errx(eval: int, fmt: str, *args: Any) -> NoReturn:
    """Print a message and exit, as osmtpd_err() does without the error text."""
    print(formatted(fmt, args), file=sys.stderr, flush=True)
    raise SystemExit(eval)
