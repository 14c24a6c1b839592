"""Compiles the modules that every line of the protocol passes, with mypyc.

They are ordinary typed Python, and run as such where there is no C compiler (or where
GREENFILTER_PURE is set): the same behaviour, at half the speed. The rest is in pyproject.toml.
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMPILED = [
    "greenfilter/_context.py",
    *(
        f"greenfilter/protocol/{name}.py"
        for name in (
            "_call",
            "_connection",
            "_fields",
            "_guard",
            "_session",
        )
    ),
    *(
        f"greenfilter/_runtime/{name}.py"
        for name in (
            "_answers",
            "_consumers",
            "_engine",
            "_raw_lines",
            "_session",
            "_wire",
            "_workers",
        )
    ),
    *(f"greenfilter/_supervisor/{name}.py" for name in ("_flow", "_link", "_router", "_tracked")),
]


def extensions() -> list[Extension]:
    """Translate the modules to C."""
    if "GREENFILTER_PURE" in os.environ:
        return []
    from mypyc.build import mypycify

    options = ["--ignore-missing-imports", "--follow-imports=silent"]
    return mypycify([*options, *COMPILED], opt_level="3", group_name="greenfilter")


class BuildIfPossible(build_ext):
    """Without a compiler, the modules stay as they are."""

    def run(self) -> None:
        """Compile, all of it or nothing."""
        try:
            super().run()
        except Exception as error:
            print(f"greenfilter will run as plain Python: {error}", file=sys.stderr)
            self.extensions = []


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildIfPossible})
