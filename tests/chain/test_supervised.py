"""Chains under ``greenfilter run``: workers that die, and files that change."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

import pytest

from greenfilter.testing import OracleError

from ..supervisor.conftest import run as run
from ..supervisor.conftest import runs, until
from ..testing.driving import TAP, tap

MEMBER = """
import sys
from greenfilter import Filter, bypass, junk, reject, rewrite

app = Filter(sys.argv[1])
answers = {"reject": reject(550, sys.argv[1]), "bypass": bypass(), "junk": junk()}
answers["rewrite"] = rewrite("new.example")

for phase in sys.argv[3:]:
    if phase in ("ehlo", "mail_from", "rcpt_to"):
        getattr(app.filter, phase)(lambda ctx, value: answers[sys.argv[2]])
    else:
        getattr(app.filter, phase)(lambda ctx: answers[sys.argv[2]])
answers = {sys.argv[2]: answers[sys.argv[2]]}
"""
# sys.argv is the next member's when a handler is called.
MEMBER = MEMBER.replace("answers[sys.argv[2]])", "answer)").replace(
    "\nfor phase", "\nanswer = answers[sys.argv[2]]\nfor phase"
)


def block(name: str, answer: str, *phases: str) -> str:
    options = ", ".join(f'"{option}"' for option in (name, answer, *phases))
    return f'[[filter]]\nrun = "member.py"\noptions = [{options}]\n'


def program(**spec: object) -> str:
    return f"[[filter]]\nexec = {shlex.join(tap(**spec))!r}\non_error = 'proceed'\n"


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "member.py").write_text(MEMBER)

    def write_chain(*blocks: str) -> Path:
        path, new = tmp_path / "mx.toml", tmp_path / "new.toml"
        new.write_text("\n".join(blocks))
        new.rename(path)
        return path

    return write_chain


def test_bypass_outlives_a_worker(run, write):
    path = write(block("first", "bypass", "ehlo"), block("second", "reject", "rcpt_to"))
    smtpd = run(path)
    session = smtpd.client()
    assert session.mail_from("alice@example.net").ok
    old = smtpd.signal_workers()
    until(lambda: bool(smtpd.workers()) and not smtpd.workers() & old, "the next worker")
    assert session.rcpt_to("bob@example.org").ok
    other = smtpd.connect()
    assert other.helo("not.bypassed").ok
    assert other.mail_from("alice@example.net").ok
    assert other.rcpt_to("bob@example.org").code == 550


def test_a_mark_that_could_not_be_sent_outlives_a_worker(run, write):
    blocks = [block("a", "junk", "ehlo"), block("b", "rewrite", "ehlo")]
    smtpd = run(write(*blocks, block("c", "bypass", "noop")))
    session = smtpd.client()
    assert not session.junk
    old = smtpd.signal_workers()
    until(lambda: bool(smtpd.workers()) and not smtpd.workers() & old, "the next worker")
    session.noop()
    assert ("noop", "junk") in [decision[:2] for decision in session.decisions]


def test_reload_reads_the_file_anew_and_refuses_a_broken_one(run, write):
    path = write(block("old", "reject", "rcpt_to"))
    smtpd = run(path)
    write("[[filter]]\nrun = 'nothere.py'\n")
    smtpd.reload()
    smtpd.wait_for_log(r"nothere\.py: no such file")
    session = smtpd.client()
    session.mail_from("alice@example.net")
    assert session.rcpt_to("bob@example.org").text == "old"
    write(block("new", "reject", "rcpt_to"))
    smtpd.reload()
    smtpd.wait_for_log("reload|new code|loaded")

    def says_new() -> bool:
        client = smtpd.client()
        client.mail_from("alice@example.net")
        return client.rcpt_to("bob@example.org").text == "new"

    until(says_new, "the new chain")


def test_an_open_session_goes_on_whatever_becomes_of_the_file(run, write):
    path = write(block("old", "reject", "noop"))
    smtpd = run(path)
    session = smtpd.client()
    assert session.mail_from("alice@example.net").ok
    write("[[filter]]\nrun = 'member.py'\nunless = {}\n")
    smtpd.reload()
    smtpd.wait_for_log(r"unless: is empty")
    assert session.rcpt_to("bob@example.org").ok
    assert session.noop().text == "old"
    path.unlink()
    smtpd.reload()
    smtpd.wait_for_log(r"mx\.toml: No such file")
    assert session.noop().text == "old"
    write(block("new", "reject", "noop"))
    smtpd.reload()
    until(lambda: smtpd.client().noop().text == "new", "the new chain")
    assert session.noop().text == "old"
    assert session.data(b"x: y\r\n").ok


def test_a_worker_that_dies_is_replaced_by_one_with_the_file_that_was_accepted(run, write):
    path = write(block("old", "reject", "rcpt_to"))
    smtpd = run(path)
    smtpd.client()
    write("[[filter]]\nrun = 'nothere.py'\n")
    old = smtpd.signal_workers()
    until(lambda: bool(smtpd.workers()) and not smtpd.workers() & old, "the next worker")
    session = smtpd.client()
    session.mail_from("alice@example.net")
    assert session.rcpt_to("bob@example.org").text == "old"


def programs(smtpd) -> list[int]:
    """The processes of the scripted program."""
    script = TAP[-1]
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if script.encode() in words and b"sh" not in words[0] and runs(int(path.parent.name)):
            found.append(int(path.parent.name))
    return [pid for pid in found if _ancestor(pid, smtpd.pid)]


def _ancestor(pid: int, wanted: int) -> bool:
    while pid > 1:
        if pid == wanted:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def test_a_program_ends_with_its_worker_and_the_next_worker_has_its_own(run, write):
    smtpd = run(write(program()))
    assert smtpd.message(smtpd.client(), b"x: y\r\n").ok
    (pid,) = programs(smtpd)
    old = smtpd.signal_workers()
    until(lambda: not runs(pid), "the end of the program")
    until(lambda: bool(smtpd.workers()) and not smtpd.workers() & old, "the next worker")
    assert smtpd.message(smtpd.client(), b"x: y\r\n").ok
    assert programs(smtpd) != [pid]


def test_a_program_that_does_not_read_its_end_of_file_ends_with_its_worker(run, write, tmp_path):
    script, pidfile = tmp_path / "stay.sh", tmp_path / "pid"
    script.write_text(f"#!/bin/sh\necho $$ > {pidfile}\necho 'register|ready'\nexec sleep 600\n")
    script.chmod(0o755)
    smtpd = run(write(f"[[filter]]\nexec = '{script}'\n"))
    pid = int(pidfile.read_text())
    smtpd.signal_workers()
    until(lambda: not runs(pid), "the end of the program")


def test_a_program_that_is_killed_is_not_noticed(run, write):
    smtpd = run(write(program(), block("last", "bypass", "noop")))
    workers = smtpd.workers()
    session = smtpd.client()
    (pid,) = programs(smtpd)
    os.kill(pid, signal.SIGKILL)
    assert smtpd.message(session, b"x: y\r\n").ok
    until(lambda: programs(smtpd) not in ([], [pid]), "the next life of the program")
    assert smtpd.workers() == workers


def test_reload_starts_a_program_anew(run, write):
    smtpd = run(write(program()))
    smtpd.client().quit()
    (pid,) = programs(smtpd)
    smtpd.reload()
    until(lambda: not runs(pid) and len(programs(smtpd)) == 1, "the new program")
    assert smtpd.message(smtpd.client(), b"x: y\r\n").ok


def test_a_chain_whose_program_does_not_register_does_not_start(run, write):
    path = write("[[filter]]\nexec = '/bin/true'\n")
    with pytest.raises(OracleError, match="cannot start: true: it ended, status 0"):
        run(path)


def test_it_runs_in_one_process_too(run, write):
    smtpd = run(write(program(), block("a", "reject", "noop")), options=("--no-supervisor",))
    session = smtpd.client()
    assert smtpd.message(session, b"x: y\r\n").ok
    assert session.noop().code == 550


def test_several_workers_have_a_program_each(run, write):
    smtpd = run(write(program()), options=("--workers", "2"))
    until(lambda: len(programs(smtpd)) == 2, "two programs")
    for _ in range(4):
        assert smtpd.message(smtpd.client(), b"x: y\r\n").ok
