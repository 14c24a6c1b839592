"""``greenfilter record``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._process import log
from .._record.pump import record as record_filter
from .._record.writer import Writer
from ..errors import UsageError


def record(command: Sequence[str], output: str, max_bytes: int, keep: int) -> None:
    """Run a filter between smtpd and a recording.

    Args:
        command: the filter.
        output: file to record to.
        max_bytes: size at which a new file is begun.
        keep: how many older files are kept.

    Raises:
        UsageError: the filter cannot be started, or nobody is there to talk to.
        SystemExit: the filter ended, with its status.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("smtpd starts this, with the protocol on standard input")
    log.set_up()
    record_filter(command, Writer(output, max_bytes, keep))
