"""The filter rspamd when rspamd is away, late, dying, or makes no sense."""

from __future__ import annotations

import gzip
import socket
import sys
import threading
from typing import TYPE_CHECKING

import gevent
import pytest

from greenfilter.filters import rspamd
from greenfilter.testing import FakeSmtpd
from tests.filters.rspamd.support import FAILED, answering, delivered
from tests.filters.support import begin, deliver, lines, log_all
from tests.support.rspamd import BODY
from tests.support.scripted import Connection, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.disk import SmallDisk

PASS = {"action": "no action", "score": 1.0, "required_score": 15.0}
REJECT = {"action": "reject"}
KEPT = "Connection: keep-alive\r\n"


@pytest.fixture
def start(caplog: pytest.LogCaptureFixture) -> Callable[..., FakeSmtpd]:
    log_all(caplog)

    def make(*servers: int | str, options: tuple[str, ...] = ()) -> FakeSmtpd:
        words = [f"--server=127.0.0.1:{each}" for each in servers]
        return FakeSmtpd(rspamd.build([*words, *options]))

    return make


def decisions(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give the log lines of decisions."""
    return [line for line in lines(caplog, "rspamd") if not line.startswith("server ")]


# Away


@pytest.mark.parametrize(
    ("policy", "code", "top"),
    [("tempfail", 451, ""), ("pass", 250, "Received"), ("junk", 250, "X-Spam: Yes")],
)
def test_without_rspamd_the_policy_decides_and_the_log_says_so(start, caplog, policy, code, top):
    with start(1, options=(f"--on-failure={policy}",)) as smtpd:
        for _ in range(2):
            assert deliver(smtpd, message=BODY).code == code
        if top:
            assert delivered(smtpd)[0][0] == top
            assert smtpd.messages[-1].data.endswith(BODY.replace(b"\n", b"\r\n"))
    away = [text for text in caplog.messages if "is away" in text]
    assert away == ["rspamd: server 127.0.0.1:1 is away: Connection refused"]
    for line in decisions(caplog):
        detail = 'detail="127.0.0.1:1: Connection refused"'
        assert line.startswith(f"{policy} reason=failed {detail} message=")


def test_with_log_only_mail_passes_whatever_happens(start, monkeypatch, caplog):
    options = ("--log-only",)
    with start(1, options=options) as smtpd:
        assert deliver(smtpd, message=BODY).ok
        monkeypatch.setattr(rspamd, "facts_of", None)  # which is a bug: calling it raises
        assert deliver(smtpd, message=BODY).ok
        assert smtpd.messages[-1].data.endswith(BODY.replace(b"\n", b"\r\n"))
    assert "tempfail log-only=yes reason=failed" in decisions(caplog)[0]


def test_the_default_is_to_have_the_client_come_again(start):
    with start(1) as smtpd:
        assert deliver(smtpd).rejected(451, FAILED)


def test_another_server_answers_and_the_first_is_asked_again_when_it_is_back(start, caplog):
    up = threading.Event()

    def first(connection: Connection) -> None:
        if up.is_set():
            answering(REJECT)(connection)
        else:
            connection.reset()

    with (
        ScriptedServer(first) as one,
        ScriptedServer(answering(PASS)) as two,
        start(one.port, two.port) as smtpd,
    ):
        assert deliver(smtpd).ok
        assert deliver(smtpd).ok
        assert len(one.connections) == 1
        up.set()
        assert deliver(smtpd).ok
        smtpd.clock.advance(11)
        assert deliver(smtpd).rejected(550)
    assert caplog.text.count(f"server 127.0.0.1:{one.port} is away") == 1
    assert caplog.text.count(f"server 127.0.0.1:{one.port} answers again") == 1


def test_a_server_that_hangs_leaves_time_for_the_next(start, caplog):
    with (
        ScriptedServer(wait_for_the_end) as one,
        ScriptedServer(answering(PASS)) as two,
        start(one.port, two.port, options=("--timeout=0.6s",)) as smtpd,
    ):
        assert deliver(smtpd).ok
    assert f"server 127.0.0.1:{one.port} is away: timed out" in caplog.text


def test_a_server_that_drips_is_not_waited_for_longer_than_one_that_hangs(start, caplog):
    def drip(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        stop = threading.Event()
        while True:
            connection.send(b" ")
            stop.wait(0.05)

    with ScriptedServer(drip) as server, start(server.port, options=("--timeout=0.5s",)) as smtpd:
        assert deliver(smtpd).rejected(451, FAILED)
    assert "timed out" in decisions(caplog)[0]


def test_a_server_that_does_not_read_is_not_waited_for(start, caplog):
    message = b"Subject: x\n\n" + (b"x" * 990 + b"\n") * 12_000
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with start(port, options=("--timeout=0.5s",)) as smtpd:
            assert deliver(smtpd, message=message).rejected(451, FAILED)
    assert "timed out" in decisions(caplog)[0]


# Dying


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b'{"action": "no act',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"SMTP, not HTTP\r\n\r\n",
        b"\x00\xff\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    ],
)
def test_a_server_that_dies_or_speaks_no_http_counts_as_away(start, caplog, answer):
    def script(connection: Connection) -> None:
        connection.read_request()
        connection.send(answer)

    with ScriptedServer(script) as server, start(server.port) as smtpd:
        assert deliver(smtpd).rejected(451, FAILED)
        assert deliver(smtpd).rejected(451, FAILED)
    for line in decisions(caplog):
        assert line.startswith("tempfail reason=failed detail=")


def test_a_server_that_dies_while_it_reads_counts_as_away(start, caplog):
    def script(connection: Connection) -> None:
        connection.sock.recv(100)
        connection.reset()

    message = b"Subject: x\n\n" + (b"x" * 990 + b"\n") * 5000
    with ScriptedServer(script) as server, start(server.port) as smtpd:
        assert deliver(smtpd, message=message).rejected(451, FAILED)
    assert "reason=failed" in decisions(caplog)[0]


def test_what_a_server_says_before_it_hangs_up_on_a_big_message_is_heard(start, caplog):
    said = b'HTTP/1.1 413 Too big\r\nContent-Length: 27\r\n\r\n{"error":"message too big"}'

    def script(connection: Connection) -> None:
        connection.read_until(b"\r\n\r\n")
        connection.send(said)
        connection.sock.shutdown(socket.SHUT_WR)
        connection.read_until(b"the end")

    message = b"Subject: x\n\n" + (b"x" * 70 + b"\n") * 10_000
    with ScriptedServer(script) as server, start(server.port) as smtpd:
        assert deliver(smtpd, message=message).rejected(451, FAILED)
    assert "answered 413: 'message too big'" in decisions(caplog)[0]


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        ("500 Oops", {"error": "no memory"}, "answered 500: 'no memory'"),
        ("404 Not found", b"<html>", "answered 404: '<html>'"),
        ("503 Busy", {"action": "no action"}, "answered 503"),
        ("200 OK", b"", "answered no JSON object: ''"),
        ("200 OK", b"{", "answered no JSON object"),
        ("200 OK", [1], "answered no JSON object: '[1]'"),
        ("200 OK", "reject", "answered no JSON object"),
        ("200 OK", {}, "answered without an action"),
        ("200 OK", {"action": 5}, "answered without an action"),
        ("200 OK", {"error": "task timeout"}, "answered without an action: 'task timeout'"),
        ("200 OK", gzip.compress(b"{}", mtime=0), "answered no JSON object"),
    ],
)
def test_answers_that_make_no_sense_count_as_no_answer(start, caplog, status, answer, reason):
    with ScriptedServer(answering(answer, status=status)) as server, start(server.port) as smtpd:
        assert deliver(smtpd).rejected(451, FAILED)
    assert reason in decisions(caplog)[0]


@pytest.mark.parametrize("offset", ["99999", "-1", "x", ""])
def test_a_body_that_begins_nowhere_makes_no_sense(start, offset):
    headers = f"Connection: close\r\nMessage-Offset: {offset}\r\n"
    script = answering(PASS, headers=headers, more=b"body")
    with ScriptedServer(script) as server, start(server.port) as smtpd:
        assert deliver(smtpd).rejected(451, FAILED)


@pytest.mark.parametrize(
    ("milter", "told"),
    [
        ({"add_headers": []}, None),
        ({"add_headers": "x"}, "add_headers is not an object"),
        ({"add_headers": {"X": 5}}, "add_headers: X: '5' is not a value"),
        ({"add_headers": {"X": {"value": None}}}, "add_headers: X: 'None' is not a value"),
        ({"add_headers": {"X": {"value": "1", "order": "top"}}}, "add_headers: X"),
        ({"add_headers": {"X: y\r\nZ": "1"}}, "add_headers: 'X: y Z' is not a header name"),
        ({"add_headers": {"": "1"}}, "is not a header name"),
        ({"add_headers": {"X-Gr\u00fcn": "1"}}, "is not a header name"),
        ({"remove_headers": {"X-A": "all"}}, "remove_headers: X-A: 'all' is not a number"),
        ({"remove_headers": {"X-A": True}}, "remove_headers: X-A: 'True' is not a number"),
        ({"remove_headers": ["X-A"]}, "remove_headers is not an object"),
        ("x", "milter is not an object"),
        (["x"], "milter is not an object"),
    ],
)
def test_parts_that_make_no_sense_are_left_out_and_logged(start, caplog, milter, told):
    script = answering({**PASS, "milter": milter})
    with ScriptedServer(script) as server, start(server.port) as smtpd:
        assert deliver(smtpd, message=BODY).ok
        assert smtpd.messages[0].data.endswith(BODY.replace(b"\n", b"\r\n"))
    (line,) = decisions(caplog)
    assert ("not_done=" in line) is (told is not None)
    assert (told or "") in line


@pytest.mark.parametrize(
    "value", ["a\r\nX-Forged: 1", "a\nX-Forged: 1", "a\rX-Forged: 1", "\0a", "\n\n", "", "\ud800"]
)
def test_no_value_of_rspamd_becomes_a_header_of_its_own_or_ends_the_headers(start, value):
    answer = {
        "action": "rewrite subject",
        "subject": value,
        "dkim-signature": value,
        "milter": {"add_headers": {"X-New": [value, {"value": value, "order": 0}]}},
    }
    with ScriptedServer(answering(answer)) as server, start(server.port) as smtpd:
        assert deliver(smtpd, message=BODY).ok
        headers, body = delivered(smtpd)
    assert body == b"hello \xff\r\n.\r\n"
    names = {line.partition(":")[0] for line in headers}
    assert names <= {"Received", "X-A", "x-a", "Subject", "X-New", "DKIM-Signature"}


def test_an_action_that_only_this_rspamd_has_lets_the_message_go_on(start, caplog):
    answer = {"action": "Custom \u00e4", "score": "nan", "symbols": {"B": {"score": -2}, "A": {}}}
    with ScriptedServer(answering(answer)) as server, start(server.port) as smtpd:
        assert deliver(smtpd).ok
    assert decisions(caplog)[0].startswith(
        'pass action="custom \\u00e4" score=0.00/0.00 symbols=B,A '
    )


def test_a_symbol_whose_name_is_no_text_is_shown_and_the_verdict_holds(start, caplog):
    symbols = [{"name": ["x"], "score": 2}, {"name": {"y": 1}, "score": 1}, {"name": "A"}]
    answer = {"action": "reject", "symbols": symbols}
    options = ("--on-failure=pass",)
    with ScriptedServer(answering(answer)) as server, start(server.port, options=options) as smtpd:
        assert deliver(smtpd).rejected(550)
    assert """symbols="['x'],{'y': 1},A" """ in decisions(caplog)[0]


# Connections


def test_a_connection_that_the_server_keeps_is_used_again(start):
    with ScriptedServer(answering(PASS, headers=KEPT)) as server, start(server.port) as smtpd:
        for _ in range(3):
            assert deliver(smtpd).ok
        assert len(server.connections) == 1


def test_one_that_was_closed_meanwhile_is_replaced_without_a_word(start, caplog):
    def once(connection: Connection) -> None:
        connection.read_request()
        answer = b'{"action": "no action"}'
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)

    with ScriptedServer(once) as server, start(server.port) as smtpd:
        for _ in range(3):
            assert deliver(smtpd).ok
        assert len(server.connections) == 3
    assert "away" not in caplog.text


def test_answers_of_unknown_length_and_in_chunks_are_read(start):
    answer = b'{"action": "reject"}'
    chunked = b"Transfer-Encoding: chunked\r\n\r\n5\r\n%b\r\nf\r\n%b\r\n0\r\n\r\n"
    for rest in (b"\r\n" + answer, chunked % (answer[:5], answer[5:])):

        def script(connection: Connection, rest: bytes = rest) -> None:
            connection.read_request()
            connection.send(b"HTTP/1.1 200 OK\r\n" + rest)

        with ScriptedServer(script) as server, start(server.port) as smtpd:
            assert deliver(smtpd).rejected(550)


def test_an_ipv6_server_and_a_socket_are_asked(tmp_path, start):
    with start(options=("--server=[::1]:1", f"--server=unix:{tmp_path}/none")) as smtpd:
        assert deliver(smtpd).rejected(451, FAILED)


def test_a_huge_message_goes_whole_to_rspamd_and_passes_unchanged(start):
    requests: list[bytes] = []

    def script(connection: Connection) -> None:
        requests.append(connection.read_request())
        connection.send(b'HTTP/1.0 200 OK\r\n\r\n{"action": "no action"}')

    message = b"Subject: huge\n\n" + (b"z" * 990 + b"\n") * 6000
    with ScriptedServer(script) as server, start(server.port) as smtpd:
        assert deliver(smtpd, message=message).ok
        data = smtpd.messages[0].data
    assert data.endswith(message.replace(b"\n", b"\r\n"))
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert body == data
    assert b"\r\nContent-Length: %d" % len(data) in head


def test_a_full_disk_refuses_for_now(start, small_disk: SmallDisk, monkeypatch):
    with ScriptedServer(answering(PASS)) as server, start(server.port) as smtpd:
        monkeypatch.setattr("tempfile.tempdir", str(small_disk.path))
        small_disk.fill()
        message = b"Subject: x\n\n" + (b"x" * 70 + b"\n") * 30_000
        assert deliver(smtpd, message=message).code // 100 == 4
        assert deliver(smtpd).ok


def test_sessions_do_not_wait_for_one_that_waits_for_rspamd():
    go_on = threading.Event()

    def script(connection: Connection) -> None:
        request = connection.read_request()
        if b"Subject: slow" in request:
            go_on.wait(20)
        connection.send(b'HTTP/1.0 200 OK\r\n\r\n{"action": "no action"}')

    with ScriptedServer(script) as server:
        words = [sys.executable, "-m", "greenfilter", "run", "rspamd", "--"]
        with FakeSmtpd([*words, f"--server=127.0.0.1:{server.port}"]) as smtpd:
            slow = begin(smtpd)
            slow.rcpt_to("bob@example.org")
            waiting = gevent.spawn(slow.data, b"Subject: slow\n\n")
            gevent.sleep(0)
            assert deliver(smtpd).ok
            assert not waiting.dead
            go_on.set()
            assert waiting.get(timeout=10).ok


def wait_for_the_end(connection: Connection) -> None:
    """Say nothing until the client has left."""
    connection.read_until(b"this is never sent")
