"""The short blocklist filter does what it shows."""

from __future__ import annotations

from collections.abc import Iterator

import dns.resolver
import pytest

from greenfilter.testing import FakeSmtpd
from tests.filters.support import try_once
from tests.support.dns import SERVFAIL, DnsServer

from .conftest import load_example

ZEN, BL = "zen.example.org", "bl.example.net"


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsServer]:
    with DnsServer({f"5.113.0.203.{BL}": {"A": "127.0.0.2"}}) as server:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.port = server.port
        resolver.nameservers = ["127.0.0.1"]
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
        yield server


def test_recipients_of_a_listed_client_are_refused(lists: DnsServer) -> None:
    with FakeSmtpd(load_example("rbl", ZEN, BL).app) as smtpd:
        for _ in range(2):
            reply = try_once(smtpd, "203.0.113.5:4000")
            assert reply.lines == (f"550 5.7.1 Listed by {BL}",)
        assert try_once(smtpd, "192.0.2.10:4000").ok
        assert try_once(smtpd, "unix:/run/smtpd.sock").ok
        assert try_once(smtpd, "203.0.113.5:4000", user="alice").ok


def test_an_error_of_a_list_is_no_listing(lists: DnsServer) -> None:
    lists.zones[f"5.113.0.203.{ZEN}"] = {"A": "127.255.255.254"}
    with FakeSmtpd(load_example("rbl", ZEN).app) as smtpd:
        assert try_once(smtpd, "203.0.113.5:4000").ok


def test_clients_pass_while_dns_is_away(lists: DnsServer) -> None:
    lists.failure = SERVFAIL
    with FakeSmtpd(load_example("rbl", BL).app) as smtpd:
        assert try_once(smtpd, "203.0.113.5:4000").ok
