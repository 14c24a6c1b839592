"""A filter whose text is given, checked by the command."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable

import pytest

from .checking import call

HEAD = """\
import asyncio, hashlib, sqlite3, time
from greenfilter import Filter, Need, disconnect, junk, reject, rewrite

app = Filter("guard")
"""


@pytest.fixture
def check(tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Check a filter whose text is given."""

    def run(text: str, *options: object) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "guard.py"
        path.write_text(HEAD + textwrap.dedent(text))
        return call(*options, path)

    return run
