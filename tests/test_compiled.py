"""The modules that setup.py compiles: up to date, and the same where they are not compiled."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_what_is_compiled_is_no_older_than_its_source():
    built = [*ROOT.glob("greenfilter/**/*.so")]
    assert built, "a compiler was not there yet: make clean, then make"
    sources = [path.with_name(path.name.split(".")[0] + ".py") for path in built]
    oldest = min(path.stat().st_mtime for path in built)
    newer = [str(path) for path in sources if path.stat().st_mtime > oldest]
    assert newer == [], "make compiles them again"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tests", ["protocol", "runtime", "osmtpd", "test_exports.py"])
def test_all_is_the_same_without_a_compiler(tests):
    command = [sys.executable, "-m", "tests.support.pure", "-p", "no:cacheprovider"]
    command += ["--hypothesis-profile", "brief", f"tests/{tests}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]


def test_the_version_tells_whether_it_is_compiled():
    command = [sys.executable, "-m", "greenfilter", "--version"]
    run = subprocess.run(command, capture_output=True, text=True)
    pure = str(import_module("greenfilter.protocol._guard").__file__).endswith(".py")
    assert run.stdout.rstrip().endswith("(plain Python)" if pure else "(compiled)")
