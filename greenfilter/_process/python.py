"""Find our own code, and start other Python processes that run modules of it."""

from __future__ import annotations

import os
import sys

# The names of all our files begin with this.
OWN_FILES = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# Where the modules of the standard library are, and in it, or elsewhere, what was installed.
# (sysconfig knows as well, but wants a file that belongs to the system's name.)
_STDLIB = os.path.dirname(os.__file__) + os.sep
_SITES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def is_installed(path: str) -> bool:
    """Return whether a file was installed, by pip or a package of the system."""
    return any(site in path for site in _SITES)


def is_stdlib(path: str) -> bool:
    """Return whether a file is a module of the standard library."""
    return path.startswith(_STDLIB) and not is_installed(path)


def make_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module as this process would.

    ``python -m`` looks for all modules in the working directory first: whoever may write there
    could have their code run. So it does only if this process does.
    """
    try:
        here = os.getcwd()
    except OSError:
        here = ""
    safe = [] if "" in sys.path or here in sys.path else ["-P"]
    return [sys.executable, *safe, "-m", module, *arguments]
