"""What may not leak: descriptors, passwords, temporary files; and what may not grow."""

import base64
import os
import sys
from pathlib import Path

from tests.supervisor.conftest import FILTERS, Supervised, until

SECRET = "hunter2-is-the-password"


def test_programs_and_forks_of_the_filter_have_none_of_our_descriptors(run, write):
    smtpd = run(
        write("""
import multiprocessing, subprocess
app = Filter("children")
def show():
    print("fork", *[os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]
                    if os.path.lexists(f"/proc/self/fd/{fd}")], flush=True)
@app.filter.mail_from
def mail_from(ctx, sender):
    script = "echo program $(ls -l /proc/self/fd | wc -l); ls -l /proc/$$/fd; sleep 0.1"
    subprocess.run(["sh", "-c", script], close_fds=False)
    child = multiprocessing.get_context("fork").Process(target=show)
    child.start()
    while child.is_alive(): time.sleep(0.01)
    return reject(550, " ".join(os.readlink(f"/proc/self/fd/{fd}") for fd in SOCKETS))
SOCKETS = [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and
    os.path.lexists(f"/proc/self/fd/{fd}") and
    os.readlink(f"/proc/self/fd/{fd}").startswith("socket")]
""")
    )
    ours = set(smtpd.client().mail_from("a@example.net").text.split())
    assert len(ours) == 1
    for pid in (smtpd.pid, *smtpd.workers()):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            if int(fd.name) > 2 and os.readlink(fd).startswith(("socket", "/memfd", "anon")):
                flags = Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().split("flags:\t")[1]
                assert int(flags.split()[0], 8) & os.O_CLOEXEC, (fd, os.readlink(fd))
    smtpd.wait_for_log("^fork ")
    assert not any(socket in line for line in smtpd.log for socket in ours)


def test_no_code_is_taken_from_the_working_directory(tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('not ours')")
    script = os.path.join(os.path.dirname(sys.executable), "greenfilter")
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        with Supervised([script, "run", str(FILTERS / "doom.py")]) as smtpd:
            assert smtpd.client().mail_from("a@example.net").ok
    finally:
        os.chdir(before)


def test_what_a_filter_starts_can_be_terminated(run, write):
    smtpd = run(
        write("""
import multiprocessing, subprocess
app = Filter("parent")
begun, begin = os.pipe()
def work():
    os.write(begin, b"x")
    time.sleep(600)
@app.filter.mail_from
def mail_from(ctx, sender):
    program = subprocess.Popen(["sleep", "600"])
    program.terminate()
    fork = multiprocessing.get_context("fork").Process(target=work)
    fork.start()
    os.read(begun, 1)
    fork.terminate()
    while fork.is_alive(): time.sleep(0.01)
    return reject(550, f"{program.wait()} {fork.exitcode}")
""")
    )
    assert smtpd.client().mail_from("a@example.net").text == "-15 -15"


def test_auth_parameters_are_never_logged(run, write):
    smtpd = run(
        write("""
app = Filter("auth")
tries = []
@app.filter.auth(deadline=0.3)
def auth(ctx, parameters):
    tries.append(1)
    if len(tries) == 1: raise RuntimeError("first")
    if len(tries) == 2: return "no decision"
    if len(tries) == 3: time.sleep(600)
    if len(tries) == 4: os._exit(1)
"""),
        options=("--log-level", "debug"),
    )
    for _ in range(6):
        session = smtpd.client()
        session.starttls()
        session.ehlo("client.example.net")
        session.auth("bob", SECRET)
    encoded = base64.b64encode(f"\0bob\0{SECRET}".encode()).decode()
    session_id = "0123456789abcdef"
    for line in (
        f"filter|0.7|1.0|smtp-in|auth|{session_id}|no-token|PLAIN {encoded}",
        f"filter|0.7|1.0|smtp-in|auth|PLAIN {encoded}",
        f"filter|0.7|1.0|smtp-nowhere|auth|{session_id}|{session_id}|PLAIN {encoded}",
        f"report|0.7|1.0|smtp-in|link-auth|{session_id}|{encoded}",
    ):
        smtpd.send_raw(line.encode() + b"\n")
    smtpd.client().quit()
    text = "\n".join(smtpd.log)
    assert "RuntimeError" in text
    assert "first" not in text
    assert SECRET not in text
    assert encoded not in text


def test_the_temporary_file_of_a_message_is_unlinked_and_for_nobody_else(run, write, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    smtpd = run(
        write(f"""
os.umask(0)
app = Filter("spools")
os.environ["TMPDIR"] = {str(spool)!r}
@app.message
def message(ctx, message):
    found = os.listdir({str(spool)!r})
    for fd in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{{fd}}"
        if os.path.lexists(path) and {str(spool)!r} in os.readlink(path):
            found.append(oct(os.stat(path).st_mode & 0o777))
    return reject(550, str(found))
""")
    )
    content = b"Subject: large\n\n" + b"x" * 990 + b"\n"
    reply = smtpd.message(smtpd.client(), content + (b"y" * 990 + b"\n") * 3000)
    assert reply.text == "['0o600']"


def test_a_line_without_end_and_a_session_without_end_keep_the_supervisor_small(run):
    smtpd = run("doom.py")
    session = smtpd.client()
    for _ in range(40):
        smtpd.send_raw(b"report|0.7|1.0|smtp-in|" + b"x" * (1 << 20))
    smtpd.send_raw(b"\n")
    tx = f"report|0.7|1546300800.123456|smtp-in|tx-rcpt|{session.id}|12345678|ok|".encode()
    for _ in range(60):
        smtpd.send_raw((tx + b"x" * 400 + b"@example.org\n") * 1000)
    until(lambda: smtpd.client().noop().code == 550, "an answer")
    memory = int(Path(f"/proc/{smtpd.pid}/statm").read_text().split()[1]) * 4096
    assert memory < 80 << 20
    assert session.noop().code == 550  # its worker knows it all
    smtpd.signal_workers()
    until(lambda: session.noop().code == 451, "the policy: no other worker can")
    reset = f"report|0.7|1546300800.123456|smtp-in|tx-reset|{session.id}|12345678\n"
    smtpd.send_raw(reset.encode())
    until(lambda: session.noop().code == 550, "a worker")
