"""What ``check --user`` finds on the disk."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenfilter._commands.check import permissions, report

from .checking import ME, call

NEED_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root is not nobody's equal here")


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A filter that everybody may read, in a directory that everybody may enter.

    Not below pytest's own directory, which another run of pytest closes to all others again.
    """
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    path = directory / "open.py"
    path.write_text(
        "from greenfilter import Filter\n"
        "app = Filter('open')\n"
        "app.filter.ehlo(lambda ctx, identity: None)\n"
    )
    path.chmod(0o644)
    yield path
    shutil.rmtree(directory)


def about(path: Path, done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines about a path and what is below it; Python's own files are where they are."""
    return [line for line in done.stderr.splitlines() if line.startswith(str(path))]


@NEED_ROOT
def test_a_file_that_the_user_cannot_read_is_told(nobodys):
    assert about(nobodys.parent, call("--user", "nobody", nobodys)) == []
    nobodys.chmod(0o600)
    done = call("--user", "nobody", nobodys)
    (line,) = about(nobodys, done)
    assert line == f"{nobodys}:1: user nobody cannot read this file (-rw-------, owner {ME})"
    assert done.returncode == 1


@NEED_ROOT
def test_a_directory_on_the_way_that_the_user_cannot_enter_is_told(nobodys):
    nobodys.parent.chmod(0o700)
    (line,) = about(nobodys.parent, call("--user", "nobody", nobodys))
    assert line.startswith(f"{nobodys.parent}:1: user nobody cannot search this directory")


@NEED_ROOT
def test_a_module_of_the_filters_that_the_user_cannot_read_is_told(nobodys):
    module = nobodys.with_name("module_of_mine.py")
    module.write_text("")
    module.chmod(0o600)
    nobodys.write_text("import module_of_mine\n" + nobodys.read_text())
    (line,) = about(module, call("--user", "nobody", nobodys))
    assert "user nobody cannot read this file" in line


@NEED_ROOT
def test_a_program_that_the_user_cannot_execute_is_told(nobodys, tmp_path):
    nobodys.write_text("#!/usr/bin/env -S greenfilter run\n" + nobodys.read_text())
    conf = tmp_path / "smtpd.conf"
    conf.write_text(
        f'filter open proc-exec "{nobodys}" user nobody\n'
        "listen on 127.0.0.1 port 2525 filter open\n"
        'action "out" relay\nmatch from any for any action "out"\n'
    )
    (line,) = about(nobodys, call("--smtpd-conf", conf, nobodys))
    assert "user nobody cannot execute this file" in line
    nobodys.chmod(0o755)
    assert about(nobodys.parent, call("--smtpd-conf", conf, nobodys)) == []


@pytest.fixture
def closed_python(nobodys, monkeypatch):
    """A command in a place for all, whose Python is a link to one in somebody's own directory."""
    home = nobodys.with_name("home")
    real = home / "versions" / "bin" / "python3"
    real.parent.mkdir(parents=True)
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    home.chmod(0o700)
    link = nobodys.with_name("python")
    link.symlink_to(real)
    command = nobodys.with_name("greenfilter")
    command.write_text(f"#!{link}\n")
    command.chmod(0o755)
    monkeypatch.setattr("sys.base_prefix", str(home / "versions"))
    monkeypatch.setattr(permissions, "own_command", lambda: str(command))
    return home, link, real, command


@NEED_ROOT
def test_a_python_that_is_a_link_to_where_the_user_may_not_be_is_told(nobodys, closed_python):
    home, link, real, command = closed_python
    problems = permissions.check_permissions(str(nobodys), "nobody", [str(command)])
    (text,) = (problem.text for problem in problems if problem.file == str(home))
    assert text == (
        f"user nobody cannot search this directory (drwx------, owner {ME}), on the way to {link},"
        f" which is {real}; install Python and greenfilter where every user can read them, as"
        " below /opt"
    )


@NEED_ROOT
def test_check_says_below_the_lines_of_smtpd_conf_that_smtpd_cannot_run_it(
    nobodys, closed_python, monkeypatch, capsys
):
    home = closed_python[0]
    monkeypatch.setattr(report, "default_user", lambda: "nobody")
    assert report.check(report.CheckOptions(str(nobodys), [])) == 0
    assert f"\n  # {home}: user nobody cannot search" in capsys.readouterr().out
    home.chmod(0o755)
    assert report.check(report.CheckOptions(str(nobodys), [])) == 0
    assert " # " not in capsys.readouterr().out


def test_the_user_of_these_tests_may_read_all(nobodys):
    done = call("--user", ME, nobodys)
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_user_that_is_not_there_is_told(nobodys):
    with pytest.raises(KeyError):
        pwd.getpwnam("no-such-user")
    done = call("--user", "no-such-user", nobodys)
    assert (done.stderr, done.returncode) == (
        "greenfilter: no user no-such-user on this machine\n",
        1,
    )
