"""The end, idleness, and readers that are slow."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest

from tests.supervisor.conftest import runs, until

HOOKS = """
app = Filter("hooks")
app.local_session(lambda: 1, lambda local: print("deleted", flush=True))
@app.filter.mail_from
def mail_from(ctx, sender):
    print("begun", flush=True)
    {}
"""


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("code", ["pass", "time.sleep(600)", "while True: pass"])
def test_at_end_of_file_delete_hooks_run_and_all_has_ended_within_a_second(run, write, code):
    smtpd = run(write(HOOKS.format(code)), options=("--workers", "2"))
    session = smtpd.client()
    assert session.noop().ok
    pending = smtpd.start(session.mail_from, "a@example.net")
    if code == "pass":
        assert pending.get(timeout=5).ok
    until(lambda: "begun" in smtpd.log, "the handler to begin")
    workers = smtpd.workers()
    begun = time.monotonic()
    link = smtpd._link
    link._closing = True
    link._sock.shutdown(1)
    assert link.target.wait(5.0) == ""
    assert time.monotonic() - begun < 1.2
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    if "while" not in code:
        until(lambda: "deleted" in smtpd.log, "the delete hook")
    pending.kill()


@pytest.mark.parametrize("end", ["smtpd", "worker"])
@pytest.mark.parametrize(
    "start",
    [
        "os.system('echo program $$; exec sleep 600')",
        "subprocess.Popen(['sh', '-c', 'echo program $$; exec sleep 600']).wait()",
        "multiprocessing.get_context('fork').Process(target=work).start()",
    ],
)
def test_what_a_handler_has_started_ends_with_its_worker(run, write, start, end):
    smtpd = run(
        write(f"""
import multiprocessing, subprocess
app = Filter("parent")
def work():
    print("program", os.getpid(), flush=True)
    time.sleep(600)
@app.filter.mail_from
def mail_from(ctx, sender):
    {start}
""")
    )
    pending = smtpd.start(smtpd.client().mail_from, "a@example.net")
    program = int(smtpd.wait_for_log("^program ").split()[1])
    if end == "worker":
        smtpd.signal_workers()
    else:
        smtpd._link._closing = True
        smtpd._link._sock.shutdown(1)
        assert smtpd._link.target.wait(5.0) == ""
    until(lambda: not runs(program), "the program to end")
    pending.kill()


def test_workers_end_with_a_supervisor_that_is_killed(run):
    smtpd = run("doom.py")
    workers = smtpd.workers()
    smtpd._link._closing = True
    os.kill(smtpd.pid, signal.SIGKILL)

    def gone():
        return not any(os.path.exists(f"/proc/{pid}/exe") for pid in workers)

    until(gone, "the workers to end")
    smtpd._link.errors.clear()
    smtpd._link._dead = True  # there is nobody to end well


def test_nothing_spins_when_idle(run):
    smtpd = run("doom.py")
    sessions = [smtpd.client() for _ in range(10)]
    processes = [smtpd.pid, *smtpd.workers()]
    before = sum(map(cpu_seconds, processes))
    gevent.sleep(2.0)
    # 25 wake-ups a second in all; 5 % of a second would be a loop without rest.
    assert sum(map(cpu_seconds, processes)) - before <= 0.1
    assert all(not session.closed for session in sessions)


def test_smtpd_may_read_slowly_and_the_workers_slower(run, write):
    """Megabytes in flight in both directions: nothing is lost, nothing grows without bound."""
    smtpd = run(
        write("""
app = Filter("slow")
@app.lines
def lines(ctx, lines):
    for number, line in enumerate(lines):
        if number % 20_000 == 0: time.sleep(0.05)
        yield line
        yield line
""")
    )
    session = smtpd.client()
    session.mail_from("a@example.net")
    session.rcpt_to("b@example.org")
    content = b"x" * 500
    session.data_begin()
    for _ in range(6):
        session.data_lines([content] * 10_000)
    memory = int(Path(f"/proc/{smtpd.pid}/statm").read_text().split()[1]) * 4096
    assert memory < 100 << 20
    reply = session.data_end()
    assert reply.ok
    assert reply.message.count(content) == 120_000


def test_end_of_file_is_seen_while_a_worker_that_hangs_takes_nothing(run, write):
    smtpd = run(
        write("""
app = Filter("hangs")
@app.filter.data_line
def data_line(ctx, line):
    while True: pass
""")
    )
    session = smtpd.client()
    session.mail_from("a@example.net")
    session.rcpt_to("b@example.org")
    session.data_begin()
    flood = smtpd.start(session.data_lines, [b"x" * 1000] * 20_000)
    gevent.sleep(1.0)
    begun = time.monotonic()
    smtpd._link._closing = True
    smtpd._link._sock.close()
    assert smtpd._link.target.wait(5.0) == ""
    assert time.monotonic() - begun < 1.5
    flood.kill()
    smtpd._link._dead = True


def test_the_supervisor_imports_neither_gevent_nor_the_filter():
    code = "import sys, greenfilter._supervisor as s; print('gevent' in sys.modules, s.Supervisor)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False ")
