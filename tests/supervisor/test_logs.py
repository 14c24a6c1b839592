"""What the workers write to their stderr, and what becomes of it when nobody reads it."""

import os
import re
import socket
import subprocess
import sys

import pytest

from tests.supervisor.conftest import until

TALK = """
app = Filter('talk')
@app.filter.ehlo
def ehlo(ctx, identity): pass
@app.filter.noop
def noop(ctx):
    %s
    return reject(550, 'alive')
"""
MODES = [(), ("--no-supervisor",)]


@pytest.mark.parametrize("options", MODES)
def test_a_long_line_is_cut_with_a_mark(run, write, options):
    smtpd = run(write(TALK % "print('x' * 70000); ctx.log.info('next')"), options=options)
    assert smtpd.client().noop().code == 550
    line = smtpd.wait_for_log("^x+")
    assert line == "x" * 4096 + "... [cut, 70,000 bytes]"
    smtpd.wait_for_log("info: .*: next")


@pytest.mark.parametrize("options", MODES)
def test_control_characters_are_escaped(run, write, options):
    smtpd = run(
        write(TALK % r"os.write(2, b'\x1b[31mred\x9b\xc2\x9b\t\xc3\xa9\r\n')"), options=options
    )
    smtpd.client().noop()
    assert smtpd.wait_for_log("red") == r"\x1b[31mred\x9b\x9b\té"


def test_the_last_words_of_a_worker_come_whole_and_before_what_is_said_of_it(run, write):
    smtpd = run(write(TALK % "os.write(2, b'last words'); os.kill(os.getpid(), 9)"))
    assert smtpd.client().noop().code == 451
    smtpd.wait_for_log(r"worker \d+ ended \(SIGKILL\)")
    log = list(smtpd.log)
    ended = next(i for i, line in enumerate(log) if "ended (SIGKILL)" in line)
    assert "last words" in log[:ended]


@pytest.mark.parametrize("options", MODES)
def test_a_fatal_error_is_in_the_log_whole(run, write, options):
    code = "import faulthandler; faulthandler.enable(); faulthandler._sigsegv()"
    if options:
        sock, theirs = socket.socketpair()
        path = write("import faulthandler; faulthandler.enable(); faulthandler._sigsegv()")
        command = [sys.executable, "-m", "greenfilter", "run", *options, str(path)]
        with (
            sock,
            theirs,
            subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True
            ) as process,
        ):
            assert "Fatal Python error: Segmentation fault" in process.stderr.read()
        return
    smtpd = run(write(TALK % code))
    smtpd.client().noop()
    smtpd.wait_for_log("Fatal Python error: Segmentation fault")
    smtpd.wait_for_log("written.py")


def test_a_child_that_keeps_the_log_open_holds_up_nothing(run, write):
    code = (
        "import subprocess; subprocess.Popen(['sleep', '20'], start_new_session=True); os._exit(3)"
    )
    smtpd = run(write(TALK % code))
    session = smtpd.client()
    assert session.noop().code == 451
    smtpd.wait_for_log(r"ended \(exit status 3\)")
    until(lambda: smtpd.workers(), "the next worker")
    assert smtpd.client("next")


@pytest.mark.parametrize("options", MODES)
def test_a_log_that_nobody_reads_stops_no_answer_and_what_is_lost_is_told(write, options):
    path = write(TALK % "os.write(2, b'a line that is longer than others are\\n' * 20000)")
    read, log = os.pipe()
    sock, theirs = socket.socketpair()
    command = [sys.executable, "-m", "greenfilter", "run", *options, str(path)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=log)
    theirs.close()
    os.close(log)
    sock.settimeout(20)
    with sock, process, open(read, "rb") as stderr:
        sock.sendall(b"config|smtp-session-timeout|300\nconfig|ready\n")
        lines = sock.makefile("rb")
        while lines.readline() != b"register|ready\n":
            pass
        for _ in range(20):  # some 15 MB
            sock.sendall(b"filter|0.7|1.0|smtp-in|noop|%016x|%016x|\n" % (1, 2))
            assert lines.readline().endswith(b"|reject|550 alive\n")
        seen = b""
        while b"were lost" not in seen:
            seen = seen[-200:] + stderr.read1(65536)
        assert re.search(rb"warning: [\d,]+ lines of the log were lost", seen)
        sock.shutdown(socket.SHUT_RDWR)
        stderr.read()


def test_few_descriptors_are_enough(write):
    path = write(TALK % "pass")
    code = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64));"
        "os.execv(sys.executable, [sys.executable, '-m', 'greenfilter', 'run', sys.argv[1]])"
    )
    sock, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE
    )
    theirs.close()
    sock.settimeout(20)
    with sock, process:
        sock.sendall(b"config|smtp-session-timeout|300\nconfig|ready\n")
        lines = sock.makefile("rb")
        while lines.readline() != b"register|ready\n":
            pass
        sock.shutdown(socket.SHUT_RDWR)
        assert process.stderr.read() == b""


def test_many_reloads_with_open_sessions_leave_few_workers_and_lose_no_session(run, write):
    smtpd = run(write(TALK % "pass"))
    sessions = []
    for _ in range(8):
        sessions.append(smtpd.client())
        start = len(smtpd.log)
        smtpd.reload()
        smtpd.wait_for_log("new sessions go to the new code", start)
    until(lambda: len(smtpd.workers()) <= 3, "the oldest workers to end")
    for session in sessions:
        assert session.noop().code == 550


def test_a_worker_whose_loop_raises_ends_at_once_and_is_replaced(run, write):
    code = (
        "import gc; wires = [o for o in gc.get_objects() if type(o).__name__ == 'Channel'];"
        "wires[0]._receive = lambda data: [][1]"
    )
    smtpd = run(write(TALK % code))
    before = smtpd.workers()
    assert smtpd.client().noop().code == 550
    smtpd.client("next")  # its loop does not come to this one, which the next worker answers
    smtpd.wait_for_log("critical: IndexError in the loop at .*; this worker ends")
    until(lambda: not smtpd.workers() & before, "its end")
    assert smtpd.client("other").noop().code == 550
