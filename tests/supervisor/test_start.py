"""Filters that cannot be started: at first, and later."""

import subprocess
import sys
from pathlib import Path

import pytest

from greenfilter.testing import SmtpdWouldDie
from tests.supervisor.conftest import until

ANSWERS = """
app = Filter("answers")
@app.filter.noop
def noop(ctx):
    return reject(550, f"on {sys.platform}")
@app.message
def message(ctx, message):
    message.headers.prepend("X-Seen", "yes")
"""

GOOD = "app = Filter('good')\n@app.filter.noop\ndef noop(ctx): return reject(550, 'alive')\n"
# What a filter needs at its start may be gone when the next worker starts.
NEEDS_FILE = (
    "if os.path.exists(os.path.dirname(__file__) + '/down'): raise RuntimeError('no database')\n"
    + GOOD
)


@pytest.mark.parametrize("options", [(), ("--workers", "3")])
def test_a_filter_that_cannot_be_imported_ends_it_with_status_2_and_one_line(run, write, options):
    with pytest.raises(SmtpdWouldDie, match="exit status was 2") as failed:
        run(write("import nonsense_that_does_not_exist"), options=options)
    lines = str(failed.value).split("\n")[1:]
    assert len(lines) == 1
    assert lines[0].strip().startswith("greenfilter: ")
    assert "written.py:3: No module named 'nonsense_that_does_not_exist'" in lines[0]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import faulthandler; faulthandler._sigsegv()", "SIGSEGV"),
        ("os._exit(0)", "exit status 0"),
        ("os._exit(7)", "exit status 7"),
    ],
)
def test_a_file_that_ends_its_process_ends_it_with_a_line_that_says_so(run, write, code, reason):
    with pytest.raises(SmtpdWouldDie, match=f"written.py did not load: {reason}"):
        run(write(code))


def test_the_status_is_that_of_an_option_parser(run, write):
    code = "import argparse; argparse.ArgumentParser().parse_args()"
    with pytest.raises(SmtpdWouldDie, match=r"exit status was 2[^!]*unrecognized arguments: --no"):
        run(write(code), "--no")


def test_code_that_cannot_be_loaded_later_leaves_policy_and_a_loud_log(run, write, tmp_path):
    smtpd = run(write(NEEDS_FILE))
    session = smtpd.client()
    (tmp_path / "down").touch()
    smtpd.signal_workers()
    smtpd.wait_for_log(r"critical: worker \d+ did not load the filter \(exit status 2\)")
    smtpd.wait_for_log("written.py:3: RuntimeError: no database")
    assert session.noop().code == 451
    assert smtpd.message(session, b"Subject: by policy\n\n").ok  # nothing is asked for it
    (tmp_path / "down").unlink()
    until(lambda: session.noop().code == 550, "a worker that has loaded")


def test_tries_to_start_become_rarer(run, write, tmp_path):
    smtpd = run(write(NEEDS_FILE))
    (tmp_path / "down").touch()
    smtpd.signal_workers()
    smtpd.wait_for_log(r"next try in 0\.8 s")
    delays = [line.split("next try in ")[1] for line in smtpd.log if "next try in" in line]
    assert delays[-3:] == ["0.2 s", "0.4 s", "0.8 s"]


def test_without_a_socket_it_says_what_to_do():
    done = subprocess.run(
        [sys.executable, "-m", "greenfilter", "run", "x.py"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "greenfilter check x.py" in done.stderr


@pytest.mark.parametrize("options", [(), ("--no-supervisor",), ("--workers", "2")])
def test_a_filter_runs_where_there_is_no_proc_and_no_call_of_linux(
    run, write, monkeypatch, options
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "without_linux"))
    smtpd = run(write(ANSWERS), options=options)
    session = smtpd.client()
    assert session.noop().text == "on openbsd7"
    assert smtpd.message(session, b"Subject: x\r\n\r\none\r\n").ok


def test_without_linux_a_worker_that_dies_is_replaced(run, write, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "without_linux"))
    smtpd = run(write(ANSWERS))
    session = smtpd.client()
    smtpd.signal_workers()
    until(lambda: session.noop().text == "on openbsd7", "the next worker")
