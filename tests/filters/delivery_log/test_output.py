"""Where records go, and what happens when they cannot."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from greenfilter.errors import UsageError
from greenfilter.filters._delivery_log import output
from greenfilter.filters._delivery_log.output import open_output
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.disk import SmallDisk


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_RETRY_SECONDS", 0.05)


def test_a_file_is_appended_to_and_readable_for_its_group_alone(tmp_path: Path):
    path = tmp_path / "mail.json"
    path.write_text("before\n")
    open_output(str(path)).write(b"one")
    open_output(str(path)).write(b"two")
    assert path.read_text() == "before\none\ntwo\n"
    open_output(str(tmp_path / "new")).write(b"one")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


def test_a_file_that_was_moved_or_removed_is_opened_anew(tmp_path: Path):
    path = tmp_path / "mail.json"
    out = open_output(str(path))
    out.write(b"one")
    path.rename(tmp_path / "mail.json.1")
    out.write(b"two")
    path.unlink()
    out.write(b"three")
    assert (tmp_path / "mail.json.1").read_text() == "one\n"
    assert path.read_text() == "three\n"


def test_what_finds_a_full_disk_is_written_when_there_is_room_each_line_whole(
    small_disk: SmallDisk, caplog: pytest.LogCaptureFixture
):
    path = small_disk.path / "mail.json"
    out = open_output(str(path))
    out.write(b"first")
    small_disk.fill()
    records = [b"%03d" % number + b"x" * 500 for number in range(200)]
    for record in records:
        out.write(record)
    assert "No space left on device" in caplog.text
    assert "mail is not held up" in caplog.text
    assert len(caplog.records) == 1
    small_disk.empty()
    wait_until(lambda: path.read_bytes().endswith(records[-1] + b"\n"), 10.0, "the records")
    lines = path.read_bytes().splitlines()
    whole = [line for line in lines if line in records]
    assert whole == records
    assert len(lines) <= len(records) + 2  # and the first one, and one that was cut
    wait_until(lambda: "works again; 0 records lost" in caplog.text, 10.0, "the log")


def test_what_is_kept_is_bounded_and_the_log_tells_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(output, "_MOST_KEPT", 3)
    path = tmp_path / "socket"
    out = open_output(f"unix:{path}")
    for number in range(5):
        out.write(b"%d" % number)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(10)
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            assert [file.readline() for _ in range(3)] == [b"2\n", b"3\n", b"4\n"]
    wait_until(lambda: "works again; 2 records lost" in caplog.text, 10.0, "the log")
    out.close()


def test_a_tcp_socket_is_connected_anew_when_its_server_was_restarted():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        port = server.getsockname()[1]
        out = open_output(f"tcp:127.0.0.1:{port}")
        out.write(b"one")
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            assert file.readline() == b"one\n"
        out.write(b"two")  # after the other end has closed
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            assert file.readline() == b"two\n"
        out.close()


def test_a_datagram_socket_gets_one_record_in_each(tmp_path: Path):
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(10)
        out = open_output(f"unix:{path}")
        out.write(b"one")
        out.write(b"two")
        assert [server.recv(100), server.recv(100)] == [b"one\n", b"two\n"]
        out.close()


def test_stderr(capsys: pytest.CaptureFixture[str]):
    open_output("stderr").write(b"one")
    assert capsys.readouterr().err == "one\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("mail", "no output; write a path"),
        ("tcp:localhost", "write tcp:HOST:PORT"),
        ("tcp:localhost:0", "write tcp:HOST:PORT"),
        ("tcp:localhost:http", "write tcp:HOST:PORT"),
        ("unix:", "no output"),
        ("/nonexistent/directory/file", "no file there"),
        ("/tmp", "no file there"),
    ],
)
def test_what_is_no_output_is_told_in_one_line(text: str, error: str):
    with pytest.raises(UsageError) as raised:
        open_output(text)
    assert error in str(raised.value)
