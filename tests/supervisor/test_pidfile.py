"""The file that tells ``greenfilter reload`` whom to signal."""

import os
import stat
import sys

import pytest

from greenfilter._cli._run import reload
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


@pytest.mark.parametrize("content", ["", "nonsense", "0", "-1"])
def test_a_reload_signals_one_process_or_none(tmp_path, monkeypatch, content):
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signalled"))
    path = tmp_path / "pid"
    path.write_text(content)
    with pytest.raises(UsageError, match="no process id in it"):
        reload(str(path))
