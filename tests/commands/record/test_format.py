"""Recordings are read as they were written."""

import pytest

from greenfilter._commands.record.format import UnreadableLog, read
from tests.testing.recordings import LOGS, TRANSCRIPTS

REPORT = b"report|0.7|1795333867.650772|smtp-in|link-disconnect|6a14acf1f252dd7b"


def write(path, data):
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("log", LOGS, ids=str)
def test_every_recording_without_times_is_read_byte_for_byte(log):
    entries = list(read([str(TRANSCRIPTS / log)]))
    again = b"".join(
        (b"< " if entry.from_smtpd else b"> ") + entry.line + b"\n" for entry in entries
    )
    assert again == (TRANSCRIPTS / log).read_bytes()
    assert sum(entry.size for entry in entries) == len(again)


def test_a_line_has_its_time_direction_bytes_and_place(tmp_path):
    log = write(tmp_path / "log", b"1795333868.5 < " + REPORT + b"\n1.25 > a\r|\xff b\n")
    first, second = read([log])
    assert (first.time, first.from_smtpd, first.line) == (1795333868.5, True, REPORT)
    assert (second.time, second.from_smtpd, second.line) == (1.25, False, b"a\r|\xff b")
    assert second.where == f"{log}:2"


def test_without_its_own_time_a_line_of_smtpd_has_the_one_inside(tmp_path):
    first, second = read([write(tmp_path / "log", b"< " + REPORT + b"\n> x\n")])
    assert (first.time, second.time) == (1795333867.650772, None)


def test_notes_are_skipped(tmp_path):
    assert not list(read([write(tmp_path / "log", b"1.5 # anything at all\n# really\n")]))


def test_a_last_line_that_was_cut_short_is_skipped(tmp_path):
    for end in (b"1.5 < report|0.", b"17953", b"1.5 > filter-result|6a14acf1"):
        log = write(tmp_path / "log", b"1.5 < config|ready\n" + end)
        assert [entry.line for entry in read([log])] == [b"config|ready"]


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"1.5 report|0.7",
        b"",
        b"1.5 < hello",
        b"1.5 < report|0.7|1.5|smtp-in",
        b"1.5 < filter|0.7|1.5|smtp-in|connect|6a14acf1f252dd7b|cc4c3b0478ec7d43",
        b"< report|0.7|now|smtp-in|link-disconnect|6a14acf1f252dd7b",
    ],
)
def test_a_line_that_is_none_of_a_recording_is_an_error_with_its_place(tmp_path, line):
    log = write(tmp_path / "log", b"1.5 < config|ready\n" + line + b"\n")
    with pytest.raises(UnreadableLog, match=f"^{log}:2: "):
        list(read([log]))


def test_a_file_that_is_not_there_is_an_error_with_its_name(tmp_path):
    with pytest.raises(UnreadableLog, match=f"^{tmp_path}/none: No such file"):
        list(read([f"{tmp_path}/none"]))


def test_files_are_read_in_the_order_of_their_times(tmp_path):
    head = b"0.5 < config|ready\n"
    logs = [
        write(
            tmp_path / name,
            head + b"%b < report|0.7|1.0|smtp-in|timeout|%b\n" % (time, name[-1:].encode()),
        )
        for name, time in (("log", b"3.0"), ("log.1", b"2.0"), ("log.2", b"1.0"))
    ]
    assert [entry.time for entry in read(logs)] == [0.5, 1.0, 0.5, 2.0, 0.5, 3.0]
