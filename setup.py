"""Compiles the modules that every line of the protocol passes, with mypyc.

They are ordinary typed Python, and run as such where they cannot be compiled: the same behaviour,
at half the speed. GREENFILTER_COMPILE=1 makes it an error, 0 does not try. All else about the
package is in pyproject.toml.
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMPILED = [
    "greenfilter/_context.py",
    "greenfilter/protocol/_call.py",
    "greenfilter/protocol/_connection.py",
    "greenfilter/protocol/_fields.py",
    "greenfilter/protocol/_guard.py",
    "greenfilter/protocol/_session.py",
    "greenfilter/_runtime/_answers.py",
    "greenfilter/_runtime/_consumers.py",
    "greenfilter/_runtime/_engine.py",
    "greenfilter/_runtime/_raw_lines.py",
    "greenfilter/_runtime/_session.py",
    "greenfilter/_runtime/_wire.py",
    "greenfilter/_runtime/_workers.py",
    "greenfilter/_supervisor/_flow.py",
    "greenfilter/_supervisor/_link.py",
    "greenfilter/_supervisor/_router.py",
    "greenfilter/_supervisor/_tracked.py",
]
WISH = os.environ.get("GREENFILTER_COMPILE")


def extensions() -> list[Extension]:
    """Translate the modules to C."""
    if WISH == "0":
        return []
    try:
        from mypyc.build import mypycify

        options = ["--ignore-missing-imports", "--follow-imports=silent"]
        return mypycify([*options, *COMPILED], opt_level="3", group_name="greenfilter")
    except (ImportError, SystemExit) as error:
        go_on(error)
        return []


class Build(build_ext):
    """Compiles all of the modules or none."""

    def run(self) -> None:
        """Compile."""
        try:
            super().run()
        except Exception as error:
            go_on(error)
            self.extensions = []


def go_on(error: BaseException) -> None:
    """Have greenfilter run as plain Python, if that is good enough."""
    if WISH == "1":
        raise error
    print(f"greenfilter will run as plain Python: {error}", file=sys.stderr)


setup(ext_modules=extensions(), cmdclass={"build_ext": Build})
