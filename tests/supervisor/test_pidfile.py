"""The file that tells ``greenfilter reload`` whom to signal."""

import os
import stat
import subprocess
import sys

import pytest

from greenfilter._commands.pidfile import reload
from greenfilter.errors import UsageError
from tests.supervisor.conftest import FILTERS, Supervised


def supervised(path):
    command = [sys.executable, "-m", "greenfilter", "run", "--pidfile", str(path)]
    return Supervised([*command, str(FILTERS / "doom.py")])


def test_nobody_else_may_write_it(tmp_path):
    path = tmp_path / "pid"
    before = os.umask(0)
    try:
        with supervised(path):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o022
    finally:
        os.umask(before)


def test_it_goes_with_its_process(tmp_path):
    path = tmp_path / "pid"
    with supervised(path):
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("content", [None, "1\n", "nonsense"])
def test_that_it_was_removed_or_written_by_another_process_is_no_error(tmp_path, content):
    path = tmp_path / "pid"
    with supervised(path) as smtpd:
        path.unlink()
        if content is not None:
            path.write_text(content)
    assert not any("Traceback" in line for line in smtpd.log)
    assert path.exists() == (content is not None)


@pytest.mark.parametrize("content", ["", "nonsense", "0", "-1", str(os.getppid())])
def test_a_file_that_nobody_has_locked_signals_nobody(tmp_path, monkeypatch, content):
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signalled"))
    path = tmp_path / "pid"
    path.write_text(content)
    with pytest.raises(UsageError, match="is not running; nothing was done"):
        reload(str(path))


def test_reload_signals_who_has_the_lock_whatever_is_written_there(tmp_path):
    path = tmp_path / "pid"
    with subprocess.Popen(["sleep", "60"]) as stranger, supervised(path) as smtpd:
        path.write_text(f"{stranger.pid}\n")
        reload(str(path))
        smtpd.wait_for_log("reload: starting workers")
        assert stranger.poll() is None
        stranger.kill()


def link(path):
    (path.parent / "precious").write_text("precious")
    path.symlink_to(path.parent / "precious")


def hard_link(path):
    (path.parent / "precious").write_text("precious")
    path.hardlink_to(path.parent / "precious")


@pytest.mark.parametrize("make", [link, hard_link, os.mkfifo, os.mkdir])
def test_what_is_no_file_of_its_own_is_left_alone_and_the_filter_serves(tmp_path, make):
    path = tmp_path / "pid"
    make(path)
    with supervised(path) as smtpd:
        smtpd.wait_for_log("--pidfile .*reload will not find this filter")
        smtpd.client()
    assert path.exists()
    precious = tmp_path / "precious"
    assert not precious.exists() or precious.read_text() == "precious"


def test_a_second_filter_with_the_same_file_says_so_and_goes_on(tmp_path):
    path = tmp_path / "pid"
    with supervised(path) as first, supervised(path) as second:
        second.wait_for_log(f"process {first.pid} has it")
        second.client()
    assert not path.exists()
