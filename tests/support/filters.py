"""How the tests start a filter file of theirs, as smtpd.conf would."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FILTERS = Path(__file__).parents[1] / "integration" / "filters"


def command(name: str | Path, *arguments: str | Path, options: Sequence[str] = ()) -> str:
    """Return the command line that runs a filter.

    Args:
        name: file, or name of one in ``tests/integration/filters`` without ``.py``.
        arguments: for the filter.
        options: for ``greenfilter run``.
    """
    path = FILTERS / f"{name}.py" if isinstance(name, str) else name
    words = [sys.executable, "-m", "greenfilter", "run", *options, path, *arguments]
    return shlex.join(map(str, words))
