"""``greenfilter record`` between smtpd and a filter: nobody notices it."""

import os
import resource
import signal
import subprocess
import sys
import threading

import pytest

from greenfilter._commands.record.format import read
from tests.support.wait import wait_until

from .link import GREENFILTER, HANDSHAKE, REGISTRATION, Recorder, python, record

CAT = ("cat",)
# Registers, and is then of no use.
START = f"import os, sys, time; os.write(1, {REGISTRATION!r}); "


def both(log):
    """What was recorded of each direction."""
    ways = {True: b"", False: b""}
    for entry in read([str(log)]):
        ways[entry.from_smtpd] += entry.line + b"\n"
    return ways[True], ways[False]


def test_every_byte_passes_both_ways_and_is_recorded(tmp_path):
    data = b"".join(
        b"report|0.7|%d.5|smtp-in|protocol-server|6a14|%b\n" % (number, bytes(range(11, 256)) * 9)
        for number in range(2000)
    )
    sent = HANDSHAKE + data + b"no end"
    with Recorder(record(tmp_path / "log", *CAT)) as recorder:
        writer = threading.Thread(target=recorder.send, args=(sent,))
        writer.start()
        received = recorder.receive(len(sent))
        writer.join()
        assert recorder.stop() == b""
    assert received == sent
    assert recorder.process.returncode == 0
    assert recorder.errors == ""
    whole = HANDSHAKE + data
    assert both(tmp_path / "log") == (whole, whole)


def test_a_filter_has_one_socket_as_its_fds_0_and_1_and_the_recorders_fd_2(tmp_path):
    code = (
        "import os, socket, stat, sys; assert os.path.sameopenfile(0, 1); "
        "assert stat.S_ISSOCK(os.fstat(0).st_mode); assert os.get_blocking(0); "
        "assert sorted(map(int, os.listdir('/proc/self/fd')))[:3] == [0, 1, 2]; "
        "assert len(os.listdir('/proc/self/fd')) == 4; print('to the log', file=sys.stderr)"
    )
    with Recorder(record(tmp_path / "log", *python(code))) as recorder:
        assert recorder.rest() == b""
    assert (recorder.process.returncode, recorder.errors) == (0, "to the log\n")


@pytest.mark.parametrize("status", [0, 1, 77])
def test_it_ends_with_the_status_of_the_filter(tmp_path, status):
    with Recorder(record(tmp_path / "log", *python(START + f"sys.exit({status})"))) as recorder:
        assert recorder.rest() == REGISTRATION
    assert recorder.process.returncode == status
    assert both(tmp_path / "log") == (b"", REGISTRATION)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_it_ends_by_the_signal_that_ended_the_filter(tmp_path, number):
    code = START + f"os.kill(os.getpid(), {number})"
    with Recorder(record(tmp_path / "log", *python(code))) as recorder:
        assert recorder.rest() == REGISTRATION
    assert recorder.process.returncode == -number


def test_it_ends_with_the_filter_also_when_a_child_of_that_holds_the_socket(tmp_path):
    code = START + (
        "import subprocess; print(subprocess.Popen(['sleep', '60'], stderr=subprocess.DEVNULL).pid,"
        " file=sys.stderr); sys.exit(3)"
    )
    with Recorder(record(tmp_path / "log", *python(code))) as recorder:
        assert recorder.rest() == REGISTRATION
    os.kill(int(recorder.errors), signal.SIGKILL)
    assert recorder.process.returncode == 3


def test_end_of_file_reaches_the_filter_and_what_it_says_then_is_passed_on(tmp_path):
    code = START + "sys.stdin.read(); print('last words'); sys.exit(5)"
    with Recorder(record(tmp_path / "log", *python(code))) as recorder:
        assert recorder.receive(len(REGISTRATION)) == REGISTRATION
        assert recorder.stop() == b"last words\n"
    assert recorder.process.returncode == 5


def test_smtpd_sees_the_end_of_file_of_a_filter_that_lives_on(tmp_path):
    code = START + "os.close(0); os.close(1); time.sleep(60)"
    with Recorder(record(tmp_path / "log", *python(code))) as recorder:
        assert recorder.rest() == REGISTRATION
        assert recorder.process.poll() is None
        recorder.process.send_signal(signal.SIGTERM)
    assert recorder.process.returncode == -signal.SIGTERM


def test_signals_are_passed_on(tmp_path):
    code = (
        "import signal; signal.signal(signal.SIGHUP, lambda *_: os.write(1, b'reloaded\\n')); "
        + START
        + "sys.stdin.read()"
    )
    with Recorder(record(tmp_path / "log", *python("import os, sys; " + code))) as recorder:
        recorder.receive(len(REGISTRATION))
        recorder.process.send_signal(signal.SIGHUP)
        assert recorder.receive(9) == b"reloaded\n"
        recorder.stop()


def test_nothing_is_read_ahead_of_a_filter_that_does_not_read(tmp_path):
    with Recorder(record(tmp_path / "log", *python(START + "time.sleep(60)"))) as recorder:
        recorder.receive(len(REGISTRATION))
        recorder.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            recorder.send(b"x" * (8 << 20))
        recorder.process.send_signal(signal.SIGTERM)


def test_pipes_do_as_well_as_a_socket(tmp_path):
    done = subprocess.run(
        record(tmp_path / "log", *CAT), input=HANDSHAKE, capture_output=True, timeout=20
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, HANDSHAKE, b"")


def test_a_command_that_cannot_be_started_is_said(tmp_path):
    with Recorder(record(tmp_path / "log", "/nowhere/filter")) as recorder:
        assert recorder.rest() == b""
    assert recorder.process.returncode == 127
    assert recorder.errors == "greenfilter: /nowhere/filter: No such file or directory\n"


def test_on_a_terminal_it_says_who_starts_it(tmp_path):
    ours, theirs = os.openpty()
    done = subprocess.run(
        record(tmp_path / "log", *CAT), stdin=theirs, capture_output=True, timeout=20
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert b"smtpd starts this" in done.stderr


def test_a_recording_that_cannot_be_written_does_not_stop_the_mail(tmp_path):
    with Recorder(record(tmp_path / "none" / "log", *CAT)) as recorder:
        recorder.send(HANDSHAKE)
        assert recorder.receive(len(HANDSHAKE)) == HANDSHAKE
        recorder.stop()
    assert recorder.process.returncode == 0
    assert recorder.errors == (
        f"error: recording stopped, the mail goes on: {tmp_path}/none/log: "
        "No such file or directory\n"
    )


def test_a_full_disk_does_not_stop_the_mail_and_what_is_recorded_can_be_read(
    tmp_path, require_smtpd
):
    copy = tmp_path / "copy"
    script = (
        f'mount -t tmpfs -o size=256k tmpfs "$1"; shift; "$@"; s=$?; '
        f'cp "$MOUNTED/log" {copy}; exit $s'
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["env", f"MOUNTED={disk}", "unshare", "--mount", "sh", "-c", script, "sh", str(disk)]
    data = b"".join(
        b"report|0.7|%d.5|smtp-in|timeout|6a14acf1f252dd7b\n" % n for n in range(20_000)
    )
    with Recorder([*command, *record(disk / "log", *CAT)]) as recorder:
        writer = threading.Thread(target=recorder.send, args=(HANDSHAKE + data,))
        writer.start()
        assert recorder.receive(len(HANDSHAKE + data)) == HANDSHAKE + data
        writer.join()
        # Still there, and passing on.
        wait_until(lambda: recorder.process.poll() is None, 1, "the recorder")
        recorder.send(b"more\n")
        assert recorder.receive(5) == b"more\n"
        recorder.stop()
    assert recorder.process.returncode == 0
    assert recorder.errors == (
        f"error: recording stopped, the mail goes on: {disk}/log: No space left on device\n"
    )
    for entry in read([str(copy)]):
        assert (entry.line + b"\n") in HANDSHAKE + data


def test_a_limit_on_the_size_of_files_does_not_stop_the_mail(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = subprocess.run(
        record(tmp_path / "log", *CAT),
        input=HANDSHAKE,
        capture_output=True,
        timeout=20,
        preexec_fn=limit,
    )
    assert (done.returncode, done.stdout) == (0, HANDSHAKE)
    assert b"File too large" in done.stderr
    assert (tmp_path / "log").read_bytes() == b""


def test_it_loads_neither_gevent_nor_a_filter():
    code = "import sys; from greenfilter._commands.record import command, pump; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "greenfilter._commands.record.pump" in loaded
    assert not {"gevent", "greenfilter._runtime", "greenfilter._smtpd"} & set(loaded)


def test_a_command_and_a_file_are_needed(tmp_path):
    for words in (["-o", str(tmp_path / "log")], ["cat"]):
        done = subprocess.run([*GREENFILTER, "record", *words], capture_output=True, timeout=20)
        assert done.returncode == 2
    assert not (tmp_path / "log").exists()
