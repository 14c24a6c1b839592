"""osmtpd_run() and the ways out: in a script, and under the command."""

import os
import socket
import subprocess
import sys

import pytest

from greenfilter.errors import UsageError
from greenfilter.testing import FakeSmtpd

PROGRAM = """
from greenfilter.osmtpd import *

def ehlo(ctx, identity):
    {body}

osmtpd_register_filter_ehlo(ehlo)
{before}
osmtpd_run()
print("this is not reached")
raise SystemExit(7)
"""


@pytest.fixture
def program(tmp_path):
    def write(body="osmtpd_filter_reject(ctx, 550, 'no %s', identity)", before=""):
        path = tmp_path / "program.py"
        path.write_text(PROGRAM.format(body=body, before=before))
        return path

    return write


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **options)


@pytest.mark.parametrize("start", [[], ["-m", "greenfilter", "run"]])
def test_the_filter_runs_from_osmtpd_run_on(program, start):
    with FakeSmtpd([sys.executable, *start, str(program())]) as smtpd:
        session = smtpd.connect()
        assert session.ehlo("a.example").lines == ("550 no a.example",)
        assert session.ehlo("b.example").lines == ("550 no b.example",)
    assert not any("not reached" in line for line in smtpd.log)


@pytest.mark.parametrize("by_name", ["program:app", "path"])
def test_check_finds_the_filter_of_the_module(program, tmp_path, by_name):
    path = program()
    target = str(path) if by_name == "path" else by_name
    checked = run(sys.executable, "-m", "greenfilter", "check", target, cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert f"filter.ehlo              ehlo ({path}:4)" in checked.stdout
    assert "not reached" not in checked.stdout


def test_a_program_that_registers_nothing_is_refused(tmp_path):
    path = tmp_path / "program.py"
    path.write_text("from greenfilter.osmtpd import *\nosmtpd_run()\n")
    checked = run(sys.executable, "-m", "greenfilter", "check", str(path))
    assert checked.returncode == 1
    assert "Filter('osmtpd') has no handler" in checked.stderr


def test_osmtpd_run_outside_of_a_script_says_what_to_do(osmtpd, monkeypatch):
    osmtpd.osmtpd_register_filter_noop(lambda ctx: None)
    monkeypatch.setattr("greenfilter._filter.app.Loaded.applies", False)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(UsageError, match="greenfilter run FILTER"):
        osmtpd.osmtpd_run()


@pytest.mark.parametrize("again", ["osmtpd_run()", "osmtpd_errx(3, '%s', 'gone wrong')"])
def test_a_callback_cannot_end_the_filter(program, again):
    body = f"{again} if identity == 'a.example' else osmtpd_filter_proceed(ctx)"
    with FakeSmtpd([sys.executable, "-m", "greenfilter", "run", str(program(body))]) as smtpd:
        assert smtpd.connect().ehlo("a.example").code == 451
        assert smtpd.connect().ehlo("b.example").ok
    if "errx" in again:
        assert "gone wrong" in smtpd.log


@pytest.mark.parametrize("command", [["run"], ["run", "--no-supervisor"], ["check"]])
def test_errx_before_the_start_ends_the_program(program, command):
    path = program(before="osmtpd_errx(3, 'bad %s: %ld', 'option', 5)")
    smtpd, ours = socket.socketpair()
    with smtpd, ours:
        ended = run(sys.executable, "-m", "greenfilter", *command, str(path), stdin=ours)
    assert ended.returncode == 3
    assert "bad option: 5\n" in ended.stderr


def test_errx_prints_its_text(osmtpd, capsys):
    with pytest.raises(SystemExit) as info:
        osmtpd.osmtpd_errx(4, "100%% %s", "wrong")
    assert info.value.code == 4
    assert capsys.readouterr().err == "100% wrong\n"


def test_err_adds_the_text_of_the_error(osmtpd, capsys):
    try:
        os.stat("/nonexistent/100%s")
    except OSError:
        with pytest.raises(SystemExit) as info:
            osmtpd.osmtpd_err(5, "cannot open %s", "it")
    assert info.value.code == 5
    assert capsys.readouterr().err == "cannot open it: No such file or directory\n"


def test_err_without_an_error_prints_its_text(osmtpd, capsys):
    with pytest.raises(SystemExit):
        osmtpd.osmtpd_err(5, "text")
    assert capsys.readouterr().err == "text\n"


def test_the_module_does_not_import_gevent():
    code = "import sys, greenfilter.osmtpd; sys.exit('gevent' in sys.modules)"
    assert run(sys.executable, "-c", code).returncode == 0


def test_a_star_import_gives_the_api_only(tmp_path):
    code = "from greenfilter.osmtpd import *; print(*dir())"
    names = run(sys.executable, "-c", code).stdout.split()
    assert "app" not in names
    assert all(name.lower().startswith(("osmtpd_", "__")) for name in names)
