"""``python -m tests.support.pure TESTS``: run tests on plain Python instead of compiled modules."""

from __future__ import annotations

import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, PathFinder, SourceFileLoader
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "greenfilter"


def use_source() -> None:
    """Import everything from its source in this process, whatever is compiled."""

    def finder(path: str) -> FileFinder:
        if PACKAGE not in (Path(path), *Path(path).parents):
            raise ImportError
        return FileFinder(path, (SourceFileLoader, SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, finder)


if __name__ == "__main__":
    import pytest

    use_source()
    guard = PathFinder.find_spec("_guard", [str(PACKAGE / "protocol")])
    assert guard is not None
    assert str(guard.origin).endswith(".py")
    sys.exit(pytest.main(sys.argv[1:]))
