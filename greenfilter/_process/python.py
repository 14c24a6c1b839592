"""Where our own code is, and how to start another Python process that runs a module of it."""

from __future__ import annotations

import os
import sys

# Every file of ours begins so.
OWN_FILES = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def command(module: str, *arguments: str) -> list[str]:
    """Give the command that runs a module as this process would.

    ``python -m`` looks for all modules in the working directory first: whoever may write there
    could have their code run. So it does only if this process does.
    """
    try:
        here = os.getcwd()
    except OSError:
        here = ""
    safe = [] if "" in sys.path or here in sys.path else ["-P"]
    return [sys.executable, *safe, "-m", module, *arguments]
