"""rbl end to end: under FakeSmtpd by ``greenfilter run``, and under the real smtpd."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest

from greenfilter.filters import rbl
from greenfilter.testing import FakeSmtpd, SmtpdWouldDie
from tests.filters.support import deliver, lines, log_all, try_once
from tests.support import smtpd as real
from tests.support.client import Client
from tests.support.dns import DROP, DnsServer
from tests.support.sink import Sink
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenfilter.testing import Session

ZEN, BL = "zen.example.org", "bl.example.net"
LISTS = f"{ZEN} (127.0.0.2), {BL} (127.0.0.2)"
LISTED, CLEAN = "203.0.113.5:4000", "192.0.2.10:4000"
LISTED6 = "[2001:db8::abcd]:4000"
NIBBLES = "d.c.b.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
MESSAGE = b"X-Blocklist: forged\r\nSubject: hello\r\n\r\nX-Blocklist: body\r\n"


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    names = (f"5.113.0.203.{ZEN}", f"5.113.0.203.{BL}", f"{NIBBLES}.{ZEN}", f"1.2.0.192.{ZEN}")
    tests = (f"2.0.0.127.{ZEN}", f"2.0.0.127.{BL}")
    with DnsServer({name: {"A": "127.0.0.2"} for name in names + tests}) as server:
        yield server


def options(dns: DnsServer, *more: str) -> list[str]:
    zones = (f"--zone={ZEN}=5", f"--zone={BL}=2.5")
    return [f"--resolver=127.0.0.1@{dns.port}", *zones, "--threshold=5", *more]


def command(dns: DnsServer, *more: str) -> list[str]:
    return [sys.executable, "-m", "greenfilter", "run", "rbl", *options(dns, *more)]


def greet(smtpd: FakeSmtpd, src: str) -> Session:
    session = smtpd.connect(src=src)
    assert session.reply.code == 220
    assert session.ehlo("client.example.net").ok
    return session


def authenticate(session: Session) -> None:
    assert session.starttls().ok
    assert session.ehlo("client.example.net").ok
    assert session.auth("alice", "secret").ok


def test_disconnect_refuses_a_listed_client_at_connect(dns: DnsServer) -> None:
    with FakeSmtpd(command(dns, "--action=disconnect")) as smtpd:
        for src, ip in ((LISTED, "203.0.113.5"), (LISTED6, "2001:db8::abcd")):
            session = smtpd.connect(src=src)
            assert session.reply.lines == (f"550 5.7.1 {ip} is listed by {ZEN} (127.0.0.2)",)
            assert session.closed
        assert smtpd.connect(src=CLEAN).reply.code == 220
    assert any(
        f'rbl: disconnect client=203.0.113.5 score=7.5 lists="{LISTS}"' in line
        for line in smtpd.log
    )


def test_reject_refuses_every_recipient_but_postmaster(dns: DnsServer) -> None:
    with FakeSmtpd(command(dns, "--action=reject")) as smtpd:
        session = greet(smtpd, LISTED)
        assert session.mail_from("a@example.net").ok
        reply = session.rcpt_to("bob@example.org")
        assert reply.lines == (f"550 5.7.1 203.0.113.5 is listed by {ZEN} (127.0.0.2)",)
        assert session.rcpt_to("Postmaster@example.org").ok
        assert session.data(MESSAGE).message is not None
        clean = greet(smtpd, CLEAN)
        assert clean.mail_from("a@example.net").ok
        assert clean.rcpt_to("bob@example.org").ok


def test_an_authenticated_user_is_not_refused(dns: DnsServer) -> None:
    with FakeSmtpd(command(dns, "--action=reject")) as smtpd:
        session = greet(smtpd, LISTED)
        authenticate(session)
        assert session.mail_from("a@example.net").ok
        assert session.rcpt_to("bob@example.org").ok


@pytest.mark.parametrize("src", ["127.0.0.1:40", "[::1]:40", "10.1.2.3:40", "unix:/run/smtpd.sock"])
def test_local_clients_are_never_looked_up(dns: DnsServer, src: str) -> None:
    with FakeSmtpd(command(dns, "--action=reject")) as smtpd:
        session = greet(smtpd, src)
        assert session.mail_from("a@example.net").ok
        assert session.rcpt_to("bob@example.org").ok
    assert not dns.queries


def test_allowed_networks_are_never_looked_up(dns: DnsServer) -> None:
    allow = ("--allow=203.0.113.0/24", "--allow=2001:db8::/32")
    with FakeSmtpd(command(dns, "--action=disconnect", *allow)) as smtpd:
        assert smtpd.connect(src=LISTED).reply.code == 220
        assert smtpd.connect(src=LISTED6).reply.code == 220
    assert not dns.queries


def test_junk_marks_each_message_of_a_listed_client(dns: DnsServer) -> None:
    with FakeSmtpd(command(dns, "--action=junk")) as smtpd:
        for src in (LISTED, CLEAN):
            session = greet(smtpd, src)
            session.mail_from("a@example.net")
            session.rcpt_to("bob@example.org")
            assert session.data(MESSAGE).ok
    assert [message.junk for message in smtpd.messages] == [True, False]


def test_header_tells_what_is_listed_and_removes_what_is_forged(dns: DnsServer) -> None:
    with FakeSmtpd(command(dns, "--action=header"), received=False) as smtpd:
        for src in (LISTED, CLEAN):
            session = greet(smtpd, src)
            session.mail_from("a@example.net")
            session.rcpt_to("bob@example.org")
            assert session.data(MESSAGE).ok
    rest = b"Subject: hello\r\n\r\nX-Blocklist: body\r\n"
    added = f"X-Blocklist: score=7.5\r\n\t{ZEN} (127.0.0.2)\r\n\t{BL} (127.0.0.2)\r\n".encode()
    assert [message.data for message in smtpd.messages] == [added + rest, rest]


@pytest.mark.parametrize("action", ["header", "reject"])
def test_a_zone_with_many_answers_makes_no_line_that_smtpd_would_not_take(action: str) -> None:
    codes = [f"127.0.{number}.2" for number in range(200)]
    meaning = "a-long-meaning " * 15
    more = [f"--action={action}", *(f"--code={code}={meaning}" for code in codes)]
    with (
        DnsServer({f"5.113.0.203.{ZEN}": {"A": codes}}) as dns,
        FakeSmtpd(command(dns, *more), version="0.6", received=False) as smtpd,
    ):
        session = greet(smtpd, LISTED)
        session.mail_from("a@example.net")
        if action == "reject":
            assert session.rcpt_to("bob@example.org").code == 550
        else:
            session.rcpt_to("bob@example.org")
            assert session.data(MESSAGE).ok
            head = smtpd.messages[0].data.partition(b"Subject:")[0]
            assert head.startswith(f"X-Blocklist: score=5\r\n\t{ZEN} (127.0.0.2".encode())
            assert head.endswith(b", ...)\r\n")
            assert max(map(len, head.split(b"\r\n"))) < 998


DBL = "dbl.example.com"


@pytest.mark.parametrize(
    ("what", "facts"),
    [
        ("sender", {"sender": "a@spam.example"}),
        ("helo", {"helo": "spam.example"}),
        ("rdns", {"rdns": "spam.example"}),
    ],
)
@pytest.mark.parametrize("log_only", [False, True])
def test_names_of_a_client_are_looked_up_too(
    what: str, facts: dict[str, str], log_only: bool, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    with DnsServer(
        {f"{name}.{DBL}": {"A": "127.0.1.2"} for name in ("test", "spam.example")}
    ) as dns:
        options = [f"--domain-zone={DBL}", f"--resolver=127.0.0.1@{dns.port}"]
        with FakeSmtpd(rbl.build([*options, *["--log-only"] * log_only])) as smtpd:
            reply = try_once(smtpd, CLEAN, **facts)
            assert try_once(smtpd, CLEAN, "a@good.example").ok
            assert try_once(smtpd, CLEAN, "").ok
    hit = f"{DBL} ({what} spam.example: 127.0.1.2)"
    assert reply.text.endswith(f"spam.example is listed by {hit}") == (not log_only)
    assert reply.ok == log_only
    observed = "log-only=yes " if log_only else ""
    assert lines(caplog, "rbl") == [f'reject {observed}client=192.0.2.10 score=1 lists="{hit}"']


def test_only_the_names_that_are_asked_for_are_looked_up() -> None:
    with DnsServer() as dns:
        options = [f"--domain-zone={DBL}", f"--resolver=127.0.0.1@{dns.port}"]
        with FakeSmtpd(rbl.build([*options, "--domain-of=rdns"])) as smtpd:
            assert try_once(smtpd, CLEAN, "a@spam.example", helo="h.example", rdns="r.example").ok
        names = {query.name.removesuffix(f".{DBL}") for query in dns.queries}
    assert names == {"r.example", "test", "invalid"}


@pytest.mark.parametrize("action", ["disconnect", "reject", "junk", "header"])
def test_log_only_lets_all_pass_and_tells_what_would_have_been_done(
    dns: DnsServer, action: str, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    app = rbl.build(options(dns, f"--action={action}", "--log-only"))
    with FakeSmtpd(app, received=False) as smtpd:
        assert deliver(smtpd, LISTED, message=MESSAGE).ok
    assert smtpd.messages[0].data == MESSAGE
    assert not smtpd.messages[0].junk
    assert lines(caplog, "rbl") == [
        f'{action} log-only=yes client=203.0.113.5 score=7.5 lists="{LISTS}"'
    ]


@pytest.mark.parametrize("action", ["disconnect", "reject", "header", "log"])
def test_nobody_is_told_a_key(action: str) -> None:
    key = "q7w3e9r5t1y8u2i6o4pazsxdcf"
    zone = f"{key}.zen.dq.example"
    with DnsServer({f"5.113.0.203.{zone}": {"A": "127.0.0.4"}}) as dns:
        arguments = [f"--zone={zone}=9", f"--action={action}", f"--resolver=127.0.0.1@{dns.port}"]
        with FakeSmtpd([sys.executable, "-m", "greenfilter", "run", "rbl", *arguments]) as smtpd:
            session = smtpd.connect(src=LISTED)
            told = session.reply.text
            if not session.closed:
                session.ehlo("client.example.net")
                session.mail_from("a@example.net")
                told += session.rcpt_to("bob@example.org").text
            if action in ("header", "log"):
                told += str(session.data(MESSAGE).message)
        assert ("zen.dq.example (127.0.0.4)" in told) == (action != "log")
        assert any("zen.dq.example (127.0.0.4)" in line for line in smtpd.log)
        assert key not in told + "".join(smtpd.log)


def test_log_refuses_nobody_and_logs_the_listed(dns: DnsServer) -> None:
    with FakeSmtpd(command(dns, "--action=log")) as smtpd:
        session = greet(smtpd, LISTED)
        assert session.mail_from("a@example.net").ok
        assert session.rcpt_to("bob@example.org").ok
        assert session.quit().ok
    assert any("rbl: log client=203.0.113.5 score=7.5" in line for line in smtpd.log)


def test_clients_pass_when_dns_is_down_and_each_zone_is_logged_once(dns: DnsServer) -> None:
    dns.failure = DROP
    with FakeSmtpd(command(dns, "--action=disconnect", "--timeout=0.2")) as smtpd:
        for _ in range(5):
            assert smtpd.connect(src=LISTED).reply.code == 220
        for number in range(10, 14):
            assert smtpd.connect(src=f"192.0.2.{number}:4000").reply.code == 220
    lines = [line for line in smtpd.log if "clients pass" in line]
    assert len(lines) == 2
    assert {zone for zone in (ZEN, BL) for line in lines if zone in line} == {ZEN, BL}


class Meeting(DnsServer):
    """Answers no question before all that are expected have come."""

    def expect(self, count: int) -> None:
        self.barrier = threading.Barrier(count)

    def answer(self, packet: bytes, transport: str) -> bytes | None:
        reply = super().answer(packet, transport)
        self.barrier.wait(20)
        return reply


def test_zones_and_clients_are_asked_at_the_same_time() -> None:
    clients = 20
    dns = Meeting()
    dns.expect(2 * clients + 4)  # and the test entries of both zones
    with dns:
        slow = ("--timeout=30", "--action=disconnect")
        with FakeSmtpd(command(dns, *slow), timeout=40) as smtpd:
            sources = [f"192.0.2.{number}:4000" for number in range(clients)]
            sessions = [smtpd.start(smtpd.connect, src) for src in sources]
            assert [session.get().reply.code for session in sessions] == [220] * clients
        assert len(dns.queries) == 2 * clients + 4


def test_many_connections_of_one_client_make_one_question_per_zone(dns: DnsServer) -> None:
    dns.delay = 0.3
    with FakeSmtpd(command(dns, "--action=disconnect")) as smtpd:
        sessions = [smtpd.start(smtpd.connect, LISTED) for _ in range(50)]
        assert {session.get().reply.code for session in sessions} == {550}
    assert len(dns.queries) == 2 + 4  # test entries


def test_the_lists_are_asked_before_the_client_says_anything(dns: DnsServer) -> None:
    with FakeSmtpd(command(dns, "--action=reject")) as smtpd:
        assert smtpd.connect(src=LISTED).reply.code == 220
        wait_until(lambda: len(dns.queries) == 2 + 4, 10, "the questions")


def test_it_runs_in_memory_too(dns: DnsServer) -> None:
    app = rbl.build(options(dns, "--action=disconnect"))
    with FakeSmtpd(app) as smtpd:
        assert smtpd.connect(src=LISTED).reply.code == 550
        assert smtpd.connect(src=CLEAN).reply.code == 220


def test_wrong_options_under_greenfilter_run_end_with_status_2_and_one_line() -> None:
    smtpd = FakeSmtpd([sys.executable, "-m", "greenfilter", "run", "rbl", "--zone="])
    with pytest.raises(SmtpdWouldDie, match="its exit status was 2"), smtpd:
        pass
    assert smtpd.log == ["greenfilter: rbl: argument --zone: '' is not valid; see --help"]


def test_real_smtpd_refuses_a_listed_client(dns: DnsServer, require_smtpd: None) -> None:
    line = " ".join(command(dns, "--action=reject"))
    with Sink() as sink, real.Smtpd({"rbl": line}, sink=sink) as smtpd:
        for address in ("192.0.2.1", "2001:db8::abcd"):
            with Client(smtpd.proxy_port, proxy=address) as client:
                assert client.greet().startswith("250 ")
                client.command("MAIL FROM:<a@example.net>")
                reply = client.command("RCPT TO:<bob@example.org>")
                assert reply == f"550 5.7.1 {address} is listed by {ZEN} (127.0.0.2)"
        with Client(smtpd.proxy_port, proxy="192.0.2.2") as client:
            client.greet()
            client.envelope("a@example.net", "bob@example.org")
            assert client.data(b"Subject: clean\r\n\r\nHello\r\n").startswith("250 ")
        assert sink.by_subject("clean").body == b"Hello\r\n"
        assert smtpd.alive()


def test_real_smtpd_delivers_the_header(dns: DnsServer, require_smtpd: None) -> None:
    line = " ".join(command(dns, "--action=header"))
    with Sink() as sink, real.Smtpd({"rbl": line}, sink=sink) as smtpd:
        with Client(smtpd.proxy_port, proxy="203.0.113.5") as client:
            client.greet()
            client.envelope("a@example.net", "bob@example.org")
            assert client.data(MESSAGE).startswith("250 ")
        headers = sink.by_subject("hello").headers
        assert headers.get_all("X-Blocklist") == [
            f"score=7.5\r\n\t{ZEN} (127.0.0.2)\r\n\t{BL} (127.0.0.2)"
        ]
