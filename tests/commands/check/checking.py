"""Checks filters: one by the command, or many in one other process."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
import textwrap
from pathlib import Path

ME = getpass.getuser()
HEAD = """\
import os, socket, subprocess, sys, threading, time
from greenfilter import Filter, disconnect, junk, reject, rewrite
app = Filter("guard")
"""
PROGRAM = """
import json, sys
from pathlib import Path
from greenfilter._commands.check.handler_body import check_handlers
from greenfilter._commands.check.top import check_top
from greenfilter._filter.load import load
sys.path.insert(0, sys.argv[1])
for path in json.load(sys.stdin):
    before = set(sys.modules)
    try:
        app = load(path, [])
        found = [str(problem) for problem in check_top(app) + check_handlers(app)]
    except BaseException as error:
        found = [repr(error)]
    print(json.dumps(found), file=sys.__stdout__, flush=True)
    sys.path.remove(str(Path(path).parent))
    for name in set(sys.modules) - before:
        if str(Path(path).parent) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
"""
# Whatever is taken from it, called or looked up in it is another one.
STUB = """
class Thing:
    def __init__(self, *args, **kwargs): pass
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return Thing()
    def __call__(self, *args, **kwargs): return Thing()
    def __enter__(self): return self
    def __exit__(self, *error): pass
def __getattr__(name):
    if name.startswith("__"): raise AttributeError(name)
    return Thing()
"""


def check_all(directory: Path, filters: dict[str, str], stubs: list[str]) -> dict[str, list[str]]:
    """Check filters, and give what was said of each, with the file's name in place of its path.

    Args:
        directory: to write to.
        filters: their texts by name, below HEAD. "== NAME.py" on a line of its own begins another
            module of the filter.
        stubs: modules that need not be installed.
    """
    library = directory / "site-packages"
    for stub in stubs:
        file = library.joinpath(*stub.split(".")) / "__init__.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        for parent in [file.parent, *file.parent.parents]:
            if parent == library:
                break
            (parent / "__init__.py").write_text(STUB)
    paths = []
    for number, text in enumerate(filters.values()):
        path = directory / str(number) / "guard.py"
        path.parent.mkdir()
        first, *modules = textwrap.dedent(text).split("\n== ")
        path.write_text(HEAD + first.lstrip("\n"))
        for module in modules:
            name, _, code = module.partition("\n")
            (path.parent / name).write_text(code)
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(library)],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), done.stderr
    return {
        name: [problem.replace(f"{Path(path).parent}/", "") for problem in json.loads(line)]
        for name, path, line in zip(filters, paths, lines, strict=True)
    }


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``greenfilter check``."""
    command = [sys.executable, "-m", "greenfilter", "check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What it says, without the path of the file."""
    return [line.rpartition("guard.py:")[2] for line in done.stderr.splitlines()]
