"""The file of a recording: what it holds, how it is rotated, and what stops it."""

import os
import re
import stat

import pytest

from greenfilter._commands.record import writer as writer_module
from greenfilter._commands.record.format import read
from greenfilter._commands.record.writer import Writer
from tests.support.wait import wait_until

MIB = 1 << 20
HANDSHAKE = b"config|smtpd-version|7.8.0\nconfig|ready\n"
REGISTRATION = b"register|report|smtp-in|*\nregister|ready\n"
HEAD = (HANDSHAKE + REGISTRATION).splitlines()


def line(number):
    return b"report|0.7|%d.5|smtp-in|timeout|6a14acf1f252dd7b" % number


def greet(writer):
    writer.put(b"<", HANDSHAKE)
    writer.put(b">", REGISTRATION)


def entries(*paths):
    return [entry.line for entry in read([str(path) for path in paths])]


def written(path, text):
    """Wait until the file holds this."""
    wait_until(lambda: path.exists() and text in path.read_bytes(), 10, repr(text))


def test_lines_are_written_whole_with_time_and_direction(tmp_path):
    log = tmp_path / "log"
    writer = Writer(str(log), MIB, 1)
    greet(writer)
    for piece in (b"report|0.7|1.5|smtp-in|tim", b"eout|6a14\r\xff", b"\nx\ny", b"\n"):
        writer.put(b"<", piece)
    writer.close()
    lines = log.read_bytes().split(b"\n")[4:]
    assert [re.sub(rb"^\d{10}\.\d{6} ", b"", text) for text in lines] == [
        b"< report|0.7|1.5|smtp-in|timeout|6a14\r\xff",
        b"< x",
        b"< y",
        b"",
    ]


def test_a_line_in_pieces_does_not_mix_with_the_other_direction(tmp_path):
    log = tmp_path / "log"
    writer = Writer(str(log), MIB, 1)
    greet(writer)
    writer.put(b"<", line(1)[:20])
    writer.put(b">", b"filter-result|1|2|proceed\n")
    writer.put(b"<", line(1)[20:] + b"\n")
    writer.close()
    assert entries(log)[4:] == [b"filter-result|1|2|proceed", line(1)]


def test_passwords_are_left_out_also_of_lines_in_pieces(tmp_path):
    log = tmp_path / "log"
    request = b"filter|0.7|1.5|smtp-in|auth|6a14acf1f252dd7b|cc4c3b0478ec7d43|PLAIN c2VjcmV0\n"
    writer = Writer(str(log), MIB, 1)
    greet(writer)
    for index in range(len(request)):
        writer.put(b"<", request[index : index + 1])
    writer.close()
    assert entries(log)[-1].endswith(b"|PLAIN ********")


def test_the_file_is_for_its_owner_only_also_if_it_was_there(tmp_path):
    for name in ("new", "old"):
        (tmp_path / "old").touch(mode=0o644)
        writer = Writer(str(tmp_path / name), MIB, 1)
        writer.close()
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_what_is_in_the_file_is_kept_but_for_half_a_line(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"1.5 < config|ready\n1.5 < config|rea" + b"x" * 100_000)
    writer = Writer(str(log), MIB, 1)
    greet(writer)
    writer.close()
    assert entries(log) == [b"config|ready", *HEAD]


def test_a_full_file_is_rotated_and_the_next_begins_with_the_handshake(tmp_path):
    log = tmp_path / "log"
    writer = Writer(str(log), 2000, 2)
    greet(writer)
    for number in range(1, 101):
        writer.put(b"<", line(number) + b"\n")
        written(log, line(number))
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    files = [tmp_path / "log.2", tmp_path / "log.1", log]
    kept = [entries(path) for path in files]
    assert [lines[:4] for lines in kept] == [HEAD] * 3
    numbers = [text for lines in kept for text in lines[4:]]
    assert numbers == [line(number) for number in range(101 - len(numbers), 101)]
    for path in files:
        assert path.stat().st_size <= 2000
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_older_file_is_kept_if_none_is_wanted(tmp_path):
    log = tmp_path / "log"
    writer = Writer(str(log), 500, 0)
    greet(writer)
    for number in range(20):
        writer.put(b"<", line(number) + b"\n")
        written(log, line(number))
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize("kind", ["directory", "fifo", "device", "missing directory"])
def test_what_is_no_file_cannot_be_recorded_to_and_the_log_says_so(tmp_path, caplog, kind):
    path = tmp_path / "log"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = "/dev/null"
    else:
        path = path / "log"
    mode = stat.S_IMODE(os.stat("/dev/null").st_mode)
    writer = Writer(str(path), MIB, 1)
    writer.close()
    assert not writer.recording
    assert [record.message for record in caplog.records] == [caplog.records[0].message]
    assert f"recording stopped, the mail goes on: {path}" in caplog.text
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) == mode


def test_a_disk_that_cannot_keep_up_ends_the_recording_and_not_the_mail(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(writer_module, "_MAX_WAITING_BYTES", 1000)
    log = tmp_path / "log"
    writer = Writer(str(log), MIB, 1)
    greet(writer)
    writer.put(b"<", b"".join(line(number) + b"\n" for number in range(100)))
    writer.close()
    assert not writer.recording
    assert "recording stopped, the mail goes on" in caplog.text
    assert entries(log) == HEAD


def test_a_line_without_end_ends_the_recording(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(writer_module, "_MAX_LINE_BYTES", 1000)
    writer = Writer(str(tmp_path / "log"), MIB, 1)
    greet(writer)
    writer.put(b">", b"x" * 1001)
    writer.close()
    assert "a line of more than" in caplog.text
