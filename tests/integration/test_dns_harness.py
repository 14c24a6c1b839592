"""The DNS server of the tests, asked by dnspython."""

import dns.exception
import dns.resolver
import pytest

from tests.support.dns import DROP, REFUSED, SERVFAIL, DnsServer

ZONES = {
    "2.0.0.127.bl.example": {"A": ["127.0.0.2", "127.0.0.4"], "TXT": ["listed", "x" * 700]},
    "v6.example": {"AAAA": "2001:db8::1"},
    "broken.example": SERVFAIL,
    "refused.example": REFUSED,
    "silent.example": DROP,
}


@pytest.fixture
def resolver(dns_server):
    dns_server.zones = dict(ZONES)
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [dns_server.host]
    resolver.port = dns_server.port
    resolver.lifetime = 10
    return resolver


def test_records_are_answered_whatever_the_case_of_the_name(resolver):
    answer = resolver.resolve("2.0.0.127.BL.example", "A")
    assert [record.to_text() for record in answer] == ["127.0.0.2", "127.0.0.4"]
    assert resolver.resolve("v6.example", "AAAA")[0].to_text() == "2001:db8::1"


def test_an_answer_too_long_for_udp_comes_over_tcp(resolver, dns_server):
    texts = [b"".join(record.strings) for record in resolver.resolve("2.0.0.127.bl.example", "TXT")]
    assert texts == [b"listed", b"x" * 700]
    assert [query.transport for query in dns_server.queries] == ["udp", "tcp"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("absent.example", dns.resolver.NXDOMAIN),
        ("bl.example", dns.resolver.NoAnswer),
        ("v6.example", dns.resolver.NoAnswer),
        ("broken.example", dns.resolver.NoNameservers),
        ("refused.example", dns.resolver.NoNameservers),
    ],
)
def test_failures_are_told_apart(resolver, name, error):
    with pytest.raises(error):
        resolver.resolve(name, "A")


def test_silence_is_a_timeout_and_counted(resolver, dns_server):
    resolver.lifetime = 0.3
    with pytest.raises(dns.exception.Timeout):
        resolver.resolve("silent.example", "A")
    assert dns_server.count("silent.example", "A") >= 1


def test_a_failing_server_fails_every_name_and_a_slow_one_can_be_stopped(resolver):
    with DnsServer(ZONES, failure=SERVFAIL) as broken:
        resolver.port = broken.port
        with pytest.raises(dns.resolver.NoNameservers):
            resolver.resolve("v6.example", "AAAA")
    resolver.lifetime = 0.3
    with DnsServer(ZONES, delay=600) as slow:
        resolver.port = slow.port
        with pytest.raises(dns.exception.Timeout):
            resolver.resolve("v6.example", "AAAA")
