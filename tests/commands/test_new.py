"""``greenfilter new``: what it writes works as it is."""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path

import pytest


def call(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=55)


@pytest.fixture
def written(tmp_path) -> Path:
    done = call("greenfilter", "new", "my-guard", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    return tmp_path


def test_it_writes_three_files_and_says_what_to_do_next(tmp_path):
    (tmp_path / "filters").mkdir()
    done = call("greenfilter", "new", "filters/guard", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0] == "Written: filters/guard.py, filters/test_guard.py, filters/guard.conf"
    assert "  python -m pytest filters/test_guard.py  # run its tests" in lines
    assert sorted(path.name for path in (tmp_path / "filters").iterdir()) == [
        "guard.conf",
        "guard.py",
        "test_guard.py",
    ]


def test_the_test_that_it_writes_passes(written):
    done = call("pytest", "-q", "-W", "error", "--strict-markers", "test_my-guard.py", cwd=written)
    assert "5 passed" in done.stdout, done.stdout


def test_the_test_that_it_writes_fails_without_the_handler(written):
    path = written / "my-guard.py"
    path.write_text(path.read_text().replace("@app.filter.mail_from\n", ""))
    done = call("pytest", "-q", "test_my-guard.py", cwd=written)
    assert "3 failed, 2 passed" in done.stdout, done.stdout


def test_check_finds_nothing_wrong_with_it(written):
    done = call(
        *("greenfilter", "check", "--strict", "--smtpd-conf", "my-guard.conf"),
        *("--user", getpass.getuser(), "my-guard.py", "--domain", "spam.example"),
        cwd=written,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "filter.mail_from" in done.stdout


def test_bench_loads_it(written):
    done = call("greenfilter", "bench", "--sessions", "20", "my-guard.py", cwd=written)
    assert done.returncode == 0
    assert "filter.mail_from sender" in done.stdout


def test_its_style_is_clean(written):
    done = call("ruff", "check", "--select", "E,F,W,I,B,UP,SIM,PT,G,RUF", ".", cwd=written)
    assert done.returncode == 0, done.stdout
    done = call("ruff", "format", "--check", ".", cwd=written)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("there", ["my-guard.py", "test_my-guard.py", "my-guard.conf"])
def test_it_overwrites_nothing(there, tmp_path):
    (tmp_path / there).write_text("mine")
    done = call("greenfilter", "new", "my-guard", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"greenfilter: {there}: already exists; nothing was written\n"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("1st", "'1st' is not a valid name for a filter: use letters, digits, - and _"),
        ("a b", "'a b' is not a valid name for a filter: use letters, digits, - and _"),
        ("gone/guard", "gone: no such directory"),
        ("email", "'email' is a Python module, which email.py would hide"),
        ("greenfilter", "'greenfilter' is a Python module, which greenfilter.py would hide"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name, problem, tmp_path):
    done = call("greenfilter", "new", name, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"greenfilter: {problem}\n")
    assert list(tmp_path.iterdir()) == []
