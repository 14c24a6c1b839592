"""The filter under the real smtpd, with a real DNS server and mail signed by dkimpy."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.client import Client
from tests.support.dns import DROP, DnsServer
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd

from .signing import MAIL, record, sign

if TYPE_CHECKING:
    from collections.abc import Iterator

FORGED = b"Authentication-Results: mx.example.org; dmarc=pass header.from=bank.example\r\n"
TIMEOUT = 3.0


@pytest.fixture(scope="module")
def dns_server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture(scope="module")
def running_server(require_smtpd: None, dns_server: DnsServer) -> Iterator[Smtpd]:
    words = [
        *(sys.executable, "-m", "greenfilter", "run", "auth_verify"),
        *("--authserv-id", "mx.example.org", "--enforce", "reject"),
        *("--resolver", f"127.0.0.1@{dns_server.port}"),
        *("--timeout", str(TIMEOUT), "--dns-timeout", str(TIMEOUT)),
    ]
    with Sink() as sink, Smtpd({"auth": shlex.join(words)}, sink=sink) as server:
        yield server


@pytest.fixture
def server(running_server: Smtpd, dns_server: DnsServer) -> Iterator[Smtpd]:
    assert running_server.sink is not None
    running_server.sink.clear()
    dns_server.failure, dns_server.delay = None, 0.0
    yield running_server
    assert running_server.alive(), running_server.last_log()


def publish(dns_server: DnsServer, domain: str, signers: int = 1) -> None:
    """Let a domain publish its records; names are new to the filter's cache in each test."""
    dns_server.zones = {
        domain: {"TXT": "v=spf1 ip4:192.0.2.10 -all"},
        f"_dmarc.{domain}": {"TXT": "v=DMARC1; p=reject"},
        f"k1._domainkey.{domain}": {"TXT": record()},
    }
    for number in range(signers - 1):
        dns_server.zones[f"k1._domainkey.s{number}.{domain}"] = {"TXT": record()}


def send(server: Smtpd, mail: bytes, domain: str, client: str = "192.0.2.10") -> str:
    """Send a message from a client's address; give the last reply."""
    with Client(server.proxy_port, proxy=client) as smtp:
        smtp.greet(f"mx.{domain}")
        smtp.envelope(f"alice@{domain}", "bob@example.org")
        return smtp.data(mail)


def mail_of(domain: str) -> bytes:
    return MAIL.replace(b"example.com", domain.encode())


def test_signed_mail_is_delivered_with_our_header_and_its_bytes(server, dns_server):
    publish(dns_server, "one.example")
    mail = sign(mail_of("one.example"), "one.example")
    assert send(server, FORGED + mail, "one.example").startswith("250 ")
    [received] = server.sink.wait_for(1)
    assert received.content.endswith(mail)
    [ours] = received.headers.get_all("Authentication-Results")
    text = " ".join(ours.split())
    assert text.startswith("mx.example.org; spf=pass smtp.mailfrom=alice@one.example; dkim=pass ")
    assert text.endswith("dmarc=pass header.from=one.example policy.dmarc=reject")
    # On top, so that a reader sees it first.
    assert received.content.index(b"Authentication-Results") < received.content.index(b"DKIM-S")
    server.wait_for_log("auth_verify: header spf=pass:one.example dkim=pass:one.example dmarc=pass")


def test_forged_mail_is_refused_with_domain_and_reason(server, dns_server):
    publish(dns_server, "two.example")
    reply = send(server, mail_of("two.example"), "two.example", "192.0.2.99")
    assert reply == (
        "550 5.7.1 Mail from two.example refused by the DMARC policy of two.example:"
        " SPF fail for two.example, DKIM none"
    )
    server.wait_for_log("auth_verify: reject reason=dmarc spf=fail:two.example dkim=none")


def test_all_questions_of_a_message_are_asked_at_once(server, dns_server):
    publish(dns_server, "three.example", signers=8)
    mail = mail_of("three.example")
    for number in range(7):
        mail = sign(mail, f"s{number}.three.example")
    mail = sign(mail, "three.example")
    dns_server.delay = 0.4
    before = time.monotonic()
    assert send(server, mail, "three.example").startswith("250 ")
    took = time.monotonic() - before
    [received] = server.sink.wait_for(1)
    assert received.content.count(b"dkim=pass") == 8
    # Eight keys, SPF and two names of DMARC would take 4.4 s one after the other, and more than
    # the time that a message has.
    assert took < TIMEOUT


def test_a_silent_dns_server_delays_mail_no_longer_than_the_limit(server, dns_server):
    dns_server.failure = DROP
    before = time.monotonic()
    mail = sign(mail_of("four.example"), "four.example")
    assert send(server, mail, "four.example").startswith("250 ")
    assert time.monotonic() - before < 3 * TIMEOUT
    [received] = server.sink.wait_for(1)
    header = received.headers["Authentication-Results"]
    assert "spf=temperror" in header
    assert "dmarc=temperror" in header
