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
