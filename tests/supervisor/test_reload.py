"""New code without losing a session."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.supervisor.conftest import until

CODE = """
app = Filter("reloaded")
@app.filter.mail_from
def mail_from(ctx, sender):
    if sender.startswith("slow"): time.sleep(600)
    return reject(550, "by {} code")
"""


def new_code(smtpd):
    """Wait until new sessions get the new code."""

    def answers():
        session = smtpd.client()
        try:
            return session.mail_from("a@example.net").text == "by new code"
        finally:
            session.quit()

    until(answers, "the new code")


def start(run, write, *options):
    path = write(CODE.format("old"))
    return run(path, options=options), path


@pytest.mark.parametrize("workers", ["1", "3"])
def test_new_sessions_get_the_new_code_and_old_ones_keep_theirs(run, write, workers):
    smtpd, _ = start(run, write, "--workers", workers)
    old = [smtpd.client() for _ in range(6)]
    assert {session.mail_from("a@example.net").text for session in old} == {"by old code"}
    before = smtpd.workers()
    write(CODE.format("new"))
    smtpd.reload()
    new_code(smtpd)
    assert {session.mail_from("a@example.net").text for session in old} == {"by old code"}
    assert before <= smtpd.workers()
    for session in old:
        session.quit()
    until(lambda: not before & smtpd.workers(), "the old workers to end")
    assert len(smtpd.workers()) == int(workers)


def test_the_command_reload_does_the_same(run, write, tmp_path):
    pidfile = tmp_path / "pid"
    smtpd, _ = start(run, write, "--pidfile", str(pidfile))
    assert int(pidfile.read_text()) == smtpd.pid
    write(CODE.format("new"))
    subprocess.run([sys.executable, "-m", "greenfilter", "reload", str(pidfile)], check=True)
    new_code(smtpd)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("this is not Python", "did not load"),
        ("os._exit(1)", "did not load"),
        (CODE.format("new") + "@app.filter.noop\ndef noop(ctx): pass", r"\(noop\)"),
        (CODE.format("new") + "@app.report.timeout\ndef timeout(ctx): pass", "report timeout"),
    ],
)
def test_code_that_cannot_serve_is_refused_and_the_old_goes_on(run, write, code, reason):
    smtpd, _ = start(run, write)
    before = smtpd.workers()
    write(code)
    smtpd.reload()
    refusal = smtpd.wait_for_log(r"error: reload: .*the old code goes on")
    assert re.search(reason, refusal)
    until(lambda: smtpd.workers() == before, "the refused workers to end")
    assert smtpd.client().mail_from("a@example.net").text == "by old code"
    write(CODE.format("new"))
    smtpd.reload()
    new_code(smtpd)


def test_an_old_worker_that_takes_too_long_is_ended_and_its_sessions_go_on(run, write):
    smtpd, _ = start(run, write, "--drain-timeout", "0.5")
    idle, busy, before = smtpd.client(), smtpd.client(), smtpd.workers()
    pending = smtpd.start(busy.mail_from, "slow@example.net")
    write(CODE.format("new"))
    smtpd.reload()
    assert pending.get(timeout=10).code == 451
    until(lambda: not before & smtpd.workers(), "the old worker to end")
    assert idle.mail_from("a@example.net").text == "by new code"
    assert busy.mail_from("a@example.net").text == "by new code"
    assert not any("in its hands" in line for line in smtpd.log)  # nobody's fault


def test_code_with_fewer_hooks_answers_what_smtpd_goes_on_asking(run, write):
    path = write(CODE.format("old") + "@app.filter.noop\ndef noop(ctx): return reject(550, 'no')\n")
    smtpd = run(path)
    assert smtpd.client().noop().code == 550
    write(CODE.format("new"))
    smtpd.reload()
    new_code(smtpd)
    assert smtpd.client().noop().ok


def test_reloading_again_and_again_under_load_loses_nothing_and_delays_nothing(run, write):
    def code(name):
        # What is answered later than this is answered with 451.
        return CODE.format(name).replace('"reloaded"', '"reloaded", deadline=2.0')

    smtpd = run(write(code("old")))
    seen, clients = [], 20

    def client():
        while seen.count("by third code") < clients:
            session = smtpd.client()
            reply = session.mail_from("a@example.net")
            assert reply.code == 550, reply
            seen.append(reply.text)
            session.quit()

    pending = [smtpd.start(client) for _ in range(clients)]
    for name in ("second", "third"):
        until(lambda: len(seen) >= 100, "replies")
        write(code(name))
        smtpd.reload()
        until(lambda name=name: f"by {name} code" in seen, "the new code")
    for each in pending:
        each.get(timeout=30)
    assert set(seen) == {"by old code", "by second code", "by third code"}


def test_a_hangup_while_the_filter_loads_is_heeded_when_it_has_loaded(run, write, tmp_path):
    new = write(CODE.format("new")).rename(tmp_path / "later")
    saved = f"""
os.kill(os.getppid(), signal.SIGHUP)
time.sleep(0.2)
os.rename({str(new)!r}, __file__)
"""
    smtpd = run(write(saved + CODE.format("old")))
    smtpd.wait_for_log("still being loaded")
    new_code(smtpd)


def test_a_hangup_before_the_supervisor_is_there_ends_nothing():
    code = (
        "import os, signal; "
        "from greenfilter._supervisor.worker import ignore_signals; ignore_signals();"
        "os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "alive\n"


def test_a_hangup_without_a_supervisor_ends_nothing(run, write):
    smtpd = run(write(CODE.format("old")), options=("--no-supervisor",))
    smtpd.reload()
    smtpd.wait_for_log("SIGHUP ignored: no supervisor")
    assert smtpd.client().mail_from("a@example.net").text == "by old code"


def test_the_other_signals_end_nothing(run, write):
    smtpd, _ = start(run, write)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(smtpd.pid, number)
    smtpd.wait_for_log("SIGINT ignored")
    assert smtpd.client().mail_from("a@example.net").text == "by old code"
