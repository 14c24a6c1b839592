"""The filter clamav in front of a real clamd, and of servers with faults that clamd has not."""

from __future__ import annotations

import base64
import shlex
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from greenfilter.errors import UsageError
from greenfilter.filters import clamav
from greenfilter.testing import FakeSmtpd
from tests.conftest import unavailable
from tests.filters.support import MESSAGE, begin, deliver, lines, log_all
from tests.support import clamd as clamd_support
from tests.support.clamd import EICAR, ClamdServer
from tests.support.client import Client
from tests.support.scripted import Connection, ScriptedServer
from tests.support.sink import Sink
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.disk import SmallDisk
    from tests.support.smtpd import Smtpd

VIRUS = b"Subject: virus\n\n" + EICAR + b"\n"
FOUND = "5.7.1 Virus found: Test.Eicar"
FAILED = "4.7.1 Virus scan failed, try again later"


@pytest.fixture(scope="module")
def clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClamdServer]:
    reason = clamd_support.missing()
    if reason is not None:
        unavailable(reason)
    with ClamdServer(tmp_path_factory.mktemp("clamd") / "it", "StreamMaxLength 300K") as server:
        yield server


@pytest.fixture
def start(clamd: ClamdServer, caplog: pytest.LogCaptureFixture) -> Callable[..., FakeSmtpd]:
    """Make a FakeSmtpd in front of the filter; it asks the real clamd, unless options say else."""
    log_all(caplog)

    def make(*options: str, server: str | int | None = None) -> FakeSmtpd:
        if not any(option.startswith("--server") for option in options):
            options = (f"--server=127.0.0.1:{server or clamd.port}", *options)
        return FakeSmtpd(clamav.build(options))

    return make


def start_process(port: int, *options: str) -> FakeSmtpd:
    """Run the filter in a process of its own, where handlers run side by side."""
    words = [sys.executable, "-m", "greenfilter", "run", "clamav", "--"]
    return FakeSmtpd([*words, f"--server=127.0.0.1:{port}", *options])


def big(kilobytes: int, first: bytes = b"") -> bytes:
    """Make a message of some length."""
    return b"Subject: big\n\n" + first + b"x" * 63 + (b"\n" + b"y" * 63) * (16 * kilobytes) + b"\n"


def unchanged(smtpd: FakeSmtpd, message: bytes) -> bool:
    """Whether what was delivered last is, but for smtpd's Received, what was sent."""
    received, _, rest = smtpd.messages[-1].data.partition(b"\r\nSubject:")
    return received.startswith(b"Received:") and b"Subject:" + rest == message.replace(
        b"\n", b"\r\n"
    )


# What is found


def test_a_virus_is_refused_with_its_name_and_other_mail_passes_unchanged(start, caplog):
    with start() as smtpd:
        assert deliver(smtpd, message=VIRUS).rejected(550, FOUND)
        assert deliver(smtpd, sender="").ok
        assert unchanged(smtpd, MESSAGE)
    refused, passed = lines(caplog, "clamav")
    assert refused.startswith("reject reason=infected virus=Test.Eicar.UNOFFICIAL message=")
    assert refused.endswith("client=192.0.2.10 from=alice@example.net")
    assert passed.startswith("pass reason=clean ")
    assert passed.endswith("from=<>")


def test_it_is_found_in_an_attachment_and_behind_much_else(start):
    attachment = (
        b"Subject: a\nMIME-Version: 1.0\nContent-Type: application/octet-stream; name=a.com\n"
        b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(EICAR)
    )
    with start() as smtpd:
        assert deliver(smtpd, message=attachment).rejected(550, FOUND)
        assert deliver(smtpd, message=big(200) + EICAR + b"\n").rejected(550, FOUND)
        assert deliver(smtpd, message=big(200)).ok


def test_lines_that_begin_with_a_dot_are_scanned_as_they_are(start):
    with ScriptedServer(answering(b"stream: OK\0")) as server:
        with start(server=server.port) as smtpd:
            assert deliver(smtpd, message=b"Subject: x\n\n.\n..\n.dot \xff\r\n").ok
        assert stream_of(server.connections[0]).endswith(b"\r\n\r\n.\r\n..\r\n.dot \xff\r\n")


def test_a_socket_works_like_tcp(start, clamd):
    with start(f"--server=unix:{clamd.socket}") as smtpd:
        assert deliver(smtpd, message=VIRUS).rejected(550, FOUND)
        assert deliver(smtpd).ok


def test_messages_on_one_connection_are_judged_one_by_one(start):
    with start() as smtpd:
        session = begin(smtpd)
        for message, ok in ((VIRUS, False), (MESSAGE, True), (VIRUS, False)):
            assert session.rcpt_to("bob@example.org").ok
            assert session.data(message).ok is ok
            session.mail_from("alice@example.net")


@pytest.mark.parametrize("kind", ["junk", "header"])
def test_a_message_can_be_marked_instead(start, kind):
    sent = b"X-Virus-Status: Clean\nX-Spam: No\n" + VIRUS
    with start(f"--action={kind}") as smtpd:
        assert deliver(smtpd, message=sent).ok
        assert deliver(smtpd).ok
    infected, clean = (message.data for message in smtpd.messages)
    status = b"X-Virus-Status: Infected (Test.Eicar.UNOFFICIAL)\r\nReceived: from "
    assert infected.startswith(b"X-Spam: Yes\r\n" + status if kind == "junk" else status)
    kept = b"Subject: virus" if kind == "junk" else b"X-Spam: No\r\nSubject: virus"
    assert infected.endswith(b"(UTC)\r\n" + kept + b"\r\n\r\n" + EICAR + b"\r\n")
    assert clean.startswith(b"Received" if kind == "junk" else b"X-Virus-Status: Clean\r\nReceived")
    assert clean.endswith(b"(UTC)\r\nSubject: hello\r\n\r\nhello\r\n")


def test_what_the_administrator_does_not_count_as_a_virus_passes(start, caplog):
    with start("--ignore=PUA.*", "--ignore=Test.Eicar*") as smtpd:
        assert deliver(smtpd, message=VIRUS).ok
    assert "pass reason=clean ignored=Test.Eicar.UNOFFICIAL " in lines(caplog, "clamav")[0]


def test_log_only_refuses_and_edits_nothing(start, caplog):
    with start("--log-only", "--action=header") as smtpd:
        assert deliver(smtpd, message=VIRUS).ok
        assert unchanged(smtpd, VIRUS)
    with start("--log-only") as smtpd:
        assert deliver(smtpd, message=VIRUS).ok
    assert "reject log-only=yes reason=infected" in lines(caplog, "clamav")[-1]


# While lines arrive


def test_lines_are_sent_to_clamd_while_they_arrive():
    with ScriptedServer(answering(b"stream: OK\0")) as server:
        with start_process(server.port) as smtpd:
            session = begin(smtpd)
            session.rcpt_to("bob@example.org")
            assert session.data_begin().ok
            session.data_lines([b"Subject: x", b"", *[b"x" * 70] * 2000])
            wait_until(
                lambda: bool(server.connections) and len(server.connections[0].received) > 120_000,
                5.0,
                "the first lines to come",
            )
            assert session.data_end().ok
        assert stream_of(server.connections[0]).count(b"x" * 70 + b"\r\n") == 2000


def test_a_client_that_leaves_ends_its_stream():
    with ScriptedServer(answering(b"stream: OK\0")) as server:
        with start_process(server.port) as smtpd:
            session = begin(smtpd)
            session.rcpt_to("bob@example.org")
            session.data_begin()
            session.data_lines([b"x" * 70] * 2000)
            wait_until(lambda: bool(server.connections), 5.0, "a connection")
            session.disconnect()
            assert deliver(smtpd).ok
        (left, _) = server.connections
        wait_until(lambda: left.sock.fileno() < 0, 5.0, "the filter to hang up")
        assert not is_complete(left)


def test_a_clamd_that_is_started_anew_while_lines_arrive_scans_the_message(start, clamd, caplog):
    with start() as smtpd:
        session = begin(smtpd)
        session.rcpt_to("bob@example.org")
        session.data_begin()
        session.data_lines([b"Subject: x", b"", EICAR, *[b"x" * 70] * 2000])
        clamd.stop()
        clamd.start()
        assert session.data_end().rejected(550, FOUND)
    assert not [text for text in caplog.messages if "away" in text]


def test_a_message_that_clamd_does_not_wait_for_is_sent_again_as_a_whole(caplog):
    def impatient(connection: Connection) -> None:
        if connection.number == 0:
            connection.sock.recv(1)
            connection.send(b"COMMAND READ TIMED OUT ERROR\0")
        else:
            answering(b"stream: OK\0")(connection)

    with ScriptedServer(impatient) as server, start_process(server.port) as smtpd:
        session = begin(smtpd)
        session.rcpt_to("bob@example.org")
        session.data_begin()
        session.data_lines([b"Subject: x", b"", *[b"x" * 70] * 2000])
        wait_until(lambda: bool(server.connections), 5.0, "a connection")
        wait_until(lambda: server.connections[0].sock.fileno() < 0, 5.0, "it to be closed")
        session.data_lines([b"y" * 70] * 2000)
        assert session.data_end().ok
        again = stream_of(server.connections[1])
        assert again.startswith(b"Received: ")
        assert again.endswith(
            b"\r\n\r\n"
            + b"x" * 70
            + b"\r\n"
            + (b"x" * 70 + b"\r\n") * 1999
            + (b"y" * 70 + b"\r\n") * 2000
        )
        assert not [line for line in smtpd.log if "away" in line]


# What is too big


@pytest.mark.parametrize(("policy", "code"), [("pass", 250), ("tempfail", 451), ("reject", 552)])
@pytest.mark.parametrize("action", ["reject", "header"])
def test_what_clamd_takes_for_too_big_is_for_an_option_to_decide(
    start, caplog, policy, code, action
):
    message = big(2000)
    with start(f"--oversize={policy}", f"--action={action}") as smtpd:
        assert deliver(smtpd, message=message).code == code
        if code == 250 and action == "reject":
            assert unchanged(smtpd, message)
        elif code == 250:
            status = b"X-Virus-Status: Not scanned (too big)\r\nReceived"
            assert smtpd.messages[0].data.startswith(status)
    (line,) = lines(caplog, "clamav")
    assert line.startswith(f"{policy} reason=oversize detail=StreamMaxLength ")


def test_what_is_above_our_own_limit_is_not_scanned_to_its_end(start, caplog):
    with start("--max-size=100k", "--oversize=reject") as smtpd:
        reply = deliver(smtpd, message=big(120) + EICAR + b"\n")
        assert reply.rejected(552, "5.3.4 Message too big to be scanned")
        assert deliver(smtpd, message=big(80)).ok
    assert 'reject reason=oversize detail="above 102400 bytes"' in lines(caplog, "clamav")[0]


def test_limits_that_clamd_reports_as_a_virus_are_none(start, caplog):
    said = b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0"
    with ScriptedServer(answering(said)) as server, start(server=server.port) as smtpd:
        assert deliver(smtpd).ok
    assert "reason=oversize detail=Heuristics.Limits.Exceeded.MaxFileSize" in caplog.text


# When clamd is away


def test_without_clamd_the_client_is_asked_to_come_again(start, caplog):
    with start("--server=127.0.0.1:1") as smtpd:
        for _ in range(2):
            assert deliver(smtpd).rejected(451, FAILED)
    away = [text for text in caplog.messages if "is away" in text]
    assert away == ["clamav: server 127.0.0.1:1 is away: Connection refused"]
    detail = 'detail="127.0.0.1:1: Connection refused"'
    assert [detail in line for line in lines(caplog, "clamav") if line.startswith("temp")] == [
        True,
        True,
    ]


def test_without_clamd_mail_passes_unchanged_if_that_is_wanted(start, tmp_path):
    for option in ("--action=reject", "--action=junk"):
        with start(f"--server=unix:{tmp_path}/none", "--on-failure=pass", option) as smtpd:
            assert deliver(smtpd).ok
            assert unchanged(smtpd, MESSAGE)
    with start("--server=127.0.0.1:1", "--on-failure=pass", "--action=header") as smtpd:
        assert deliver(smtpd).ok
        status = b"X-Virus-Status: Not scanned (no scanner)\r\nReceived"
        assert smtpd.messages[0].data.startswith(status)


def test_another_server_scans_and_the_first_is_asked_again_when_it_is_back(
    start, clamd, caplog, monkeypatch
):
    with ScriptedServer(lambda connection: connection.reset()) as first:
        servers = [f"--server=127.0.0.1:{port}" for port in (first.port, clamd.port)]
        with start(*servers) as smtpd:
            assert deliver(smtpd, message=VIRUS).rejected(550, FOUND)
            asked = len(first.connections)
            assert deliver(smtpd, message=VIRUS).rejected(550, FOUND)
            assert len(first.connections) == asked
            first._script = answering(b"stream: OK\0")
            smtpd.clock.advance(11)
            assert deliver(smtpd, message=VIRUS).ok
    text = caplog.text
    assert text.count(f"server 127.0.0.1:{first.port} is away") == 1
    assert text.count(f"server 127.0.0.1:{first.port} answers again") == 1


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "hung up without an answer"),
        (b"stream: O", "hung up after 'stream: O'"),
        (b"no\nsense\0", r"answered 'no\\nsense'"),
        (b"x" * 9000, "hung up after 'xxx"),
        (b"stream: Can't allocate memory ERROR\0", "answered"),
        (b"\xff\xfe FOUNDX\0", "answered"),
    ],
)
def test_answers_that_make_no_sense_count_as_no_scan(start, caplog, said, reason):
    with ScriptedServer(answering(said)) as server, start(server=server.port) as smtpd:
        assert deliver(smtpd).rejected(451, FAILED)
    away, line = lines(caplog, "clamav")
    assert away.startswith(f"server 127.0.0.1:{server.port} is away: ")
    assert line.startswith("tempfail reason=failed detail=")
    assert reason in line


def test_the_name_of_a_virus_cannot_put_lines_into_replies(start):
    said = b"stream: Bad\r\n250 Name\xff FOUND\0"
    with ScriptedServer(answering(said)) as server, start(server=server.port) as smtpd:
        assert deliver(smtpd).rejected(550, "5.7.1 Virus found: Bad?250?Name?")


def test_a_scan_that_takes_too_long_keeps_its_slot_until_it_ends(start, caplog):
    go_on = threading.Event()

    def slow(connection: Connection) -> None:
        read_stream(connection)
        go_on.wait(20)
        connection.send(b"stream: OK\0")

    options = ("--timeout=0.3s", "--max-scans=1")
    with ScriptedServer(slow) as server, start(*options, server=server.port) as smtpd:
        assert deliver(smtpd).rejected(451, FAILED)
        assert deliver(smtpd).rejected(451, FAILED)
        assert sum(1 for each in server.connections if is_complete(each)) == 1
        go_on.set()
        wait_until(lambda: deliver(smtpd).ok, 5.0, "the slot to be given back")
    late, full = [line for line in lines(caplog, "clamav") if line.startswith("temp")][:2]
    assert "timed out" in late
    assert "too many are going on" in full


def test_scans_wait_for_one_another():
    running = most = 0
    lock = threading.Lock()

    def count(connection: Connection) -> None:
        nonlocal running, most
        read_stream(connection)
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.05)
        with lock:
            running -= 1
        connection.send(b"stream: OK\0")

    with ScriptedServer(count) as server, start_process(server.port, "--max-scans=2") as smtpd:
        sessions = [begin(smtpd) for _ in range(6)]
        replies: list[Any] = []

        def send(session: Any) -> None:
            session.rcpt_to("bob@example.org")
            replies.append(session.data(MESSAGE))

        gevent.joinall([gevent.spawn(send, each) for each in sessions], 20, raise_error=True)
        assert [reply.ok for reply in replies] == [True] * 6
    assert most == 2


def test_a_full_disk_refuses_for_now(start, small_disk: SmallDisk, monkeypatch):
    with start() as smtpd:
        monkeypatch.setattr("tempfile.tempdir", str(small_disk.path))
        small_disk.fill()
        assert deliver(smtpd, message=big(1500)).code // 100 == 4
        assert deliver(smtpd).ok


# Options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--server", "unix:clamd.ctl"], "a socket is unix:/PATH"),
        (["--server", "host:0"], "is not HOST:PORT"),
        (["--server", "host:99999"], "is not HOST:PORT"),
        (["--server", "a b"], "is not HOST:PORT"),
        (["--action", "delete"], "invalid choice"),
        (["--max-scans", "0"], "is not a number from 1 to 1000"),
        (["--timeout", "soon"], "is not a time"),
        (["--nonsense"], "unrecognized arguments"),
        (["--server", "@/nowhere"], "No such file"),
    ],
)
def test_options_that_are_wrong_are_told_in_one_line(options, text):
    with pytest.raises(UsageError) as error:
        clamav.build(options)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_its_manual_has_lines_for_smtpd_conf_and_says_what_happens_without_clamd(capsys):
    with pytest.raises(SystemExit):
        clamav.build(["--help"])
    manual = capsys.readouterr().out
    assert 'listen on 0.0.0.0 filter "clamav"' in manual
    assert "--on-failure says what happens" in manual


def test_under_the_real_smtpd(clamd, smtpd: Callable[..., Smtpd], sink: Sink, tmp_path: Path):
    words = [sys.executable, "-m", "greenfilter", "run", "clamav", "--"]
    command = shlex.join([*words, "--server", f"127.0.0.1:{clamd.port}"])
    server = smtpd({"clamav": command}, sink=sink)
    for message, code in ((VIRUS, b"550 5.7.1"), (big(150), b"250 "), (MESSAGE, b"250 ")):
        with Client(server.port) as client:
            client.greet()
            client.envelope("alice@example.net", "bob@example.org")
            reply = client.data(message.replace(b"\n", b"\r\n"))
            assert reply.encode().startswith(code)
    assert sink.by_subject("big").body == big(150).replace(b"\n", b"\r\n").partition(b"\r\n\r\n")[2]
    sink.by_subject("hello")
    assert len(sink.wait_for(2)) == 2
    server.wait_for_log(r"clamav: reject reason=infected virus=Test.Eicar")


def answering(said: bytes) -> Callable[[Connection], None]:
    """Make a script that reads a stream to its end and answers it."""

    def script(connection: Connection) -> None:
        if read_stream(connection):
            connection.send(said)

    return script


def read_stream(connection: Connection) -> bool:
    """Read a stream; give whether its end has come."""
    while not is_complete(connection):
        data = connection.sock.recv(1 << 16)
        if not data:
            return False
        connection.received += data
    return True


def is_complete(connection: Connection) -> bool:
    """Whether the end of a stream has come."""
    return _chunks(connection)[-1:] == [b""]


def stream_of(connection: Connection) -> bytes:
    """Give the message of a stream."""
    return b"".join(_chunks(connection))


def _chunks(connection: Connection) -> list[bytes]:
    rest = connection.received.removeprefix(b"zINSTREAM\0")
    chunks = []
    while len(rest) >= 4:
        (size,) = struct.unpack("!L", rest[:4])
        if len(rest) < 4 + size:
            break
        chunks.append(rest[4 : 4 + size])
        rest = rest[4 + size :]
    return chunks
