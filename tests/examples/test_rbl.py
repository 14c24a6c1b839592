"""rbl.py against a DNS server on loopback: what is asked, what an answer means, what is kept."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Any

import pytest
from dnslib import QTYPE, RR, SOA, DNSRecord

from greenfilter.protocol import Address
from tests.support.dns import DROP, REFUSED, SERVFAIL, DnsServer

from .conftest import load_example

if TYPE_CHECKING:
    from collections.abc import Iterator

ZEN, BL = "zen.example.org", "bl.example.net"
V4 = "2.0.0.192"
LISTED = ipaddress.ip_address("192.0.0.2")
LISTED6 = ipaddress.ip_address("2001:db8::abcd")
NIBBLES = "d.c.b.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"


class SoaServer(DnsServer):
    """Answers "no such name" with a SOA record, as real zones do."""

    ttl, minimum = 900, 600

    def answer(self, packet: bytes, transport: str) -> bytes | None:
        reply = DNSRecord.parse(super().answer(packet, transport))
        if not reply.rr:
            times = (1, 2, 3, 4, self.minimum)
            reply.add_auth(RR(ZEN, QTYPE.SOA, ttl=self.ttl, rdata=SOA(times=times)))
        packed: bytes = reply.pack()
        return packed


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    zones = {f"2.0.0.127.{zone}": {"A": "127.0.0.2"} for zone in (ZEN, BL)}
    zones |= {f"{V4}.{ZEN}": {"A": "127.0.0.2"}, f"{V4}.{BL}": {"A": "127.0.0.9"}}
    with DnsServer(zones) as server:
        yield server


def clients_asked(dns: DnsServer) -> list[str]:
    """The names asked for, but for those of test entries."""
    tests = ("1.0.0.127.", "2.0.0.127.", "1.0.0.0.0.0.f.7.f.f.f.f.", "2.0.0.0.0.0.f.7.f.f.f.f.")
    return [query.name for query in list(dns.queries) if not query.name.startswith(tests)]


def load(dns: DnsServer, *options: str) -> Any:
    zones = [] if any(option.startswith("--zone") for option in options) else [f"--zone={ZEN}=5"]
    return load_example("rbl", f"--resolver=127.0.0.1@{dns.port}", *zones, *options)


def blocklists(dns: DnsServer, *options: str) -> Any:
    module = load(dns, *options)
    return module.Blocklists(module.options)


@pytest.mark.parametrize(
    ("ip", "name"),
    [
        (LISTED, f"{V4}.{ZEN}"),
        (LISTED6, f"{NIBBLES}.{ZEN}"),
    ],
)
def test_a_client_is_asked_for_by_octets_or_nibbles(dns: DnsServer, ip: Any, name: str) -> None:
    dns.zones[name] = {"A": "127.0.0.2"}
    assert blocklists(dns).look_up(ip) == (5.0, [f"{ZEN} (127.0.0.2)"])
    assert dns.count(name, "A") == 1


def test_a_client_on_no_list_passes(dns: DnsServer) -> None:
    lists = blocklists(dns)
    assert lists.look_up(ipaddress.ip_address("192.0.0.3")) is None
    assert lists.look_up(ipaddress.ip_address("2001:db8::1")) is None
    assert len(clients_asked(dns)) == 2


def test_weights_of_zones_add_up_to_the_threshold(dns: DnsServer) -> None:
    zones = [f"--zone={ZEN}=5", f"--zone={BL}=2.5"]
    both = (7.5, [f"{ZEN} (127.0.0.2)", f"{BL} (127.0.0.9)"])
    assert blocklists(dns, *zones, "--threshold=7.5").look_up(LISTED) == both
    assert blocklists(dns, *zones, "--threshold=7.6").look_up(LISTED) is None


def test_a_list_of_good_clients_counts_against_the_others(dns: DnsServer) -> None:
    zones = [f"--zone={ZEN}=5", f"--zone={BL}=-5"]
    assert blocklists(dns, *zones).look_up(LISTED) is None


def test_the_weightiest_list_comes_first(dns: DnsServer) -> None:
    dns.zones[f"{V4}.good.example"] = {"A": "127.0.0.3"}
    lists = blocklists(dns, "--zone=good.example=-1", f"--zone={BL}=2", f"--zone={ZEN}=5")
    assert lists.look_up(LISTED) == (
        6.0,
        [f"{ZEN} (127.0.0.2)", f"{BL} (127.0.0.9)", "good.example (127.0.0.3)"],
    )


def test_return_codes_have_names_and_weights_for_all_zones_or_one(dns: DnsServer) -> None:
    dns.zones[f"{V4}.{ZEN}"] = {"A": ["127.0.0.10", "127.0.0.2"]}
    dns.zones[f"{V4}.{BL}"] = {"A": "127.0.0.2"}
    found = blocklists(
        dns,
        f"--zone={ZEN}=5",
        f"--zone={BL}=1",
        "--code=127.0.0.2=spam-source",
        f"--code={ZEN}/127.0.0.10=dynamic,7",
    ).look_up(LISTED)
    zen = f"{ZEN} (127.0.0.10 dynamic, 127.0.0.2 spam-source)"
    assert found == (8.0, [zen, f"{BL} (127.0.0.2 spam-source)"])


def test_a_code_of_weight_0_does_not_count(dns: DnsServer) -> None:
    assert blocklists(dns, "--code=127.0.0.2=harmless,0").look_up(LISTED) is None


@pytest.mark.parametrize("action", ["", "--code=127.0.0.2=harmless,0"])
def test_a_code_of_weight_0_is_not_named(dns: DnsServer, action: str) -> None:
    dns.zones[f"{V4}.{ZEN}"] = {"A": ["127.0.0.4", "127.0.0.2"]}
    lists = blocklists(dns, *filter(None, [action]), f"--zone={ZEN}=5", f"--zone={BL}=0")
    codes = "127.0.0.4" if action else "127.0.0.2, 127.0.0.4"
    assert lists.look_up(LISTED) == (5.0, [f"{ZEN} ({codes})"])


ERRORS = ["127.255.255.254", "127.0.0.255", "127.0.1.255", "127.0.0.1", "192.0.2.80", "128.0.0.1"]


@pytest.mark.parametrize("answer", ERRORS)
def test_an_error_of_a_list_of_good_clients_does_not_count(dns: DnsServer, answer: str) -> None:
    dns.zones[f"{V4}.{BL}"] = {"A": answer}
    lists = blocklists(dns, f"--zone={ZEN}=5", f"--zone={BL}=-5")
    assert lists.look_up(LISTED) == (5.0, [f"{ZEN} (127.0.0.2)"])


@pytest.mark.parametrize("answer", ERRORS)
def test_an_answer_that_means_an_error_is_no_listing(
    dns: DnsServer, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    dns.zones[f"{V4}.{ZEN}"] = {"A": answer}
    assert blocklists(dns).look_up(LISTED) is None
    assert f"{ZEN}: answered {answer}, which is an error" in caplog.text


def test_a_name_without_address_records_is_no_listing(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    dns.zones[f"{V4}.{ZEN}"] = {"TXT": "only text"}
    dns.zones[f"2.0.0.127.{ZEN}"] = {"A": "127.0.0.2"}
    assert blocklists(dns).look_up(LISTED) is None
    assert not caplog.records


@pytest.mark.parametrize("failure", [SERVFAIL, REFUSED, DROP])
def test_clients_pass_when_dns_fails_and_one_line_says_so(
    dns: DnsServer, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    dns.failure = failure
    lists = blocklists(dns, "--timeout=0.1")
    for number in range(1, 10):
        assert lists.look_up(ipaddress.ip_address(f"192.0.0.{number}")) is None
    assert len(caplog.records) == 1
    assert f"blocklist {ZEN}: " in caplog.text


def test_a_zone_that_failed_three_times_in_a_row_is_left_alone(dns: DnsServer) -> None:
    dns.failure = REFUSED
    zones = [f"--zone={ZEN}=5", f"--zone={BL}=5"]
    lists = blocklists(dns, *zones)
    for number in range(10, 13):
        lists.look_up(ipaddress.ip_address(f"192.0.0.{number}"))
    dns.failure = None
    dns.queries.clear()
    assert lists.look_up(LISTED) is None
    assert not dns.queries

    for zone in lists.zones:  # the minute has passed
        zone.paused_until = 0.0
    assert lists.look_up(LISTED) == (10.0, [f"{ZEN} (127.0.0.2)", f"{BL} (127.0.0.9)"])
    assert [zone.failures for zone in lists.zones] == [0, 0]


def test_one_zone_that_is_down_leaves_the_others_in_force(dns: DnsServer) -> None:
    dns.zones[f"{V4}.{ZEN}"] = DROP
    zones = [f"--zone={ZEN}=5,0.1", f"--zone={BL}=5"]
    assert blocklists(dns, *zones).look_up(LISTED) == (5.0, [f"{BL} (127.0.0.9)"])


def test_a_failed_question_is_not_asked_again_at_once(dns: DnsServer) -> None:
    dns.failure = SERVFAIL
    lists = blocklists(dns)
    lists.look_up(LISTED)
    dns.queries.clear()
    lists.look_up(LISTED)
    assert not dns.queries


def test_a_dead_resolver_is_passed_over_within_the_time_limit(dns: DnsServer) -> None:
    with DnsServer(failure=DROP) as dead:
        module = load_example(
            "rbl",
            f"--resolver=127.0.0.1@{dead.port}",
            f"--resolver=127.0.0.1@{dns.port}",
            f"--zone={ZEN}=5,2",
        )
        assert module.Blocklists(module.options).look_up(LISTED) is not None
        assert dead.queries


def test_answers_are_kept(dns: DnsServer) -> None:
    lists = blocklists(dns)
    first = lists.look_up(LISTED)
    assert lists.look_up(LISTED) == first
    assert dns.count(f"{V4}.{ZEN}") == 1


@pytest.mark.parametrize(("low", "high", "kept"), [(1, 3600, 60), (100, 3600, 100), (1, 30, 30)])
def test_a_listing_is_kept_as_long_as_dns_says_within_bounds(
    dns: DnsServer, low: float, high: float, kept: float
) -> None:
    module = load(dns)
    module.MIN_TTL, module.MAX_TTL = low, high
    lists = module.Blocklists(module.options)
    assert lists.start(LISTED)[0][1].get().ttl == kept


def test_no_listing_is_kept_as_long_as_the_soa_record_says() -> None:
    with SoaServer() as dns:
        assert blocklists(dns).start(LISTED)[0][1].get().ttl == SoaServer.minimum


def test_no_listing_without_a_soa_record_is_kept_for_the_least_time(dns: DnsServer) -> None:
    module = load(dns)
    other = ipaddress.ip_address("192.0.0.99")
    assert module.Blocklists(module.options).start(other)[0][1].get().ttl == module.MIN_TTL


def test_one_question_is_in_flight_however_many_ask(dns: DnsServer) -> None:
    lists = blocklists(dns)
    first, second = lists.start(LISTED)[0][1], lists.start(LISTED)[0][1]
    assert first is second
    assert first.get().codes == ("127.0.0.2",)
    assert dns.count(f"{V4}.{ZEN}") == 1
    assert not lists.asking


class World(DnsServer):
    """Lists everybody, for as long as it is told to."""

    ended = True

    def _lookup(self, name: str) -> Any:
        return {"A": "127.0.0.2"} if self.ended else super()._lookup(name)


@pytest.mark.parametrize("ip", [LISTED, LISTED6])
@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_a_list_of_everybody_is_not_believed_and_tried_again_later(
    ip: Any, delay: float, caplog: pytest.LogCaptureFixture
) -> None:
    with World({f"2.0.0.127.{ZEN}": {"A": "127.0.0.2"}}, delay=delay) as dns:
        lists = blocklists(dns)
        dns.zones[load(dns).query_name(ip, ZEN)] = {"A": "127.0.0.2"}
        for _ in range(3):
            assert lists.look_up(ip) is None
        assert f"blocklist {ZEN} lists " in caplog.text
        assert "left alone for 60 minutes" in caplog.text
        assert len(caplog.records) == 1
        asked = len(dns.queries)
        lists.look_up(ipaddress.ip_address("192.0.0.77"))
        assert len(dns.queries) == asked

        dns.ended = False
        lists.cache.clear()  # the hour has passed
        lists.zones[0].dead_until = 0.0
        lists.zones[0].test_at.clear()
        assert lists.look_up(ip) == (5.0, [f"{ZEN} (127.0.0.2)"])


def test_a_list_without_its_test_entry_is_believed_and_told_of(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    del dns.zones[f"2.0.0.127.{ZEN}"]
    lists = blocklists(dns)
    for _ in range(3):
        assert lists.look_up(LISTED) == (5.0, [f"{ZEN} (127.0.0.2)"])
    assert [record.getMessage() for record in caplog.records] == [
        f"blocklist {ZEN} does not list its test entry 127.0.0.2: it may be misspelt, or have ended"
    ]


def test_test_entries_are_asked_for_once_an_hour_and_in_a_minute_if_that_failed(
    dns: DnsServer,
) -> None:
    dns.zones[f"1.0.0.127.{ZEN}"] = SERVFAIL
    lists = blocklists(dns)
    assert lists.look_up(LISTED) is not None
    left = lists.zones[0].test_at[4] - time.monotonic()
    assert 0 < left <= 60
    del dns.zones[f"1.0.0.127.{ZEN}"]
    lists.cache.clear()
    lists.zones[0].test_at.clear()
    for _ in range(3):
        assert lists.look_up(LISTED) is not None
    left = lists.zones[0].test_at[4] - time.monotonic()
    assert 3500 < left <= 3600
    assert dns.count(f"2.0.0.127.{ZEN}") == 2


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("q7w3e9r5t1y8u2i6o4pazsxdcf.zen.dq.example=5", "zen.dq.example"),
        ("secret.zen.dq.example=5", "zen.dq.example"),
        ("abcdefghijklmnopqrstuvwxyz.example.org", "example.org"),
        ("a1b2c3d4e5f6.zen.example", "zen.example"),
        ("rep.0123456789abcdef.mail.example", "mail.example"),
        ("zen.example.org", "zen.example.org"),
        ("dnsbl-1.example.net", "dnsbl-1.example.net"),
        ("b.barracudacentral.org", "b.barracudacentral.org"),
        ("key.example.org=5,3,A List", "A List"),
        ("key.example.org=5,,A List, here", "A List, here"),
    ],
)
def test_a_zone_is_told_without_its_key(zone: str, shown: str) -> None:
    with DnsServer() as dns:
        assert load(dns, f"--zone={zone}").options.zone[0].shown == shown


@pytest.mark.parametrize("failure", [SERVFAIL, REFUSED, DROP, "127.255.255.254", "world"])
def test_the_log_does_not_tell_the_key(failure: str, caplog: pytest.LogCaptureFixture) -> None:
    key = "q7w3e9r5t1y8u2i6o4pazsxdcf"
    caplog.set_level("DEBUG", "rbl")
    name = f"{V4}.{key}.zen.example"
    with DnsServer({name: {"A": failure}} if failure[0].isdigit() else {}) as dns:
        if failure == "world":
            dns.zones[f"1.0.0.127.{key}.zen.example"] = {"A": "127.0.0.2"}
        elif not failure[0].isdigit():
            dns.failure = failure
        lists = blocklists(dns, f"--zone={key}.zen.example=5,0.2")
        assert lists.look_up(LISTED) is None
        lists.zones[0].tests[4].join()
    assert "zen.example" in caplog.text
    assert key not in caplog.text


@pytest.mark.parametrize(
    ("wire", "ip"),
    [
        ("192.0.2.1:25", "192.0.2.1"),
        ("[2001:db8::1]:25", "2001:db8::1"),
        ("[::ffff:192.0.2.1]:25", "192.0.2.1"),
        ("unix:/var/run/smtpd.sock", "None"),
        ("local", "None"),
    ],
)
def test_ip_address_of_a_client(dns: DnsServer, wire: str, ip: str) -> None:
    assert str(load(dns).client_ip(Address(wire))) == ip


def test_headers_of_the_name_are_removed_from_the_header_only(dns: DnsServer) -> None:
    lines = [
        *(b"Received: x", b"\tX-Blocklist: folded", b"x-BLOCKLIST : forged", b" folded", b"\tmore"),
        *(b"X-Blocklists: other", b"Subject: s", b"X-Blocklist:", b"", b"X-Blocklist: body", b" x"),
    ]
    assert list(load(dns).without_header(lines, b"X-Blocklist")) == [
        *(b"Received: x", b"\tX-Blocklist: folded", b"X-Blocklists: other", b"Subject: s"),
        *(b"", b"X-Blocklist: body", b" x"),
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "--zone"),
        (["--zone="], "--zone: invalid zone value: ''"),
        (["--zone=a..b"], "--zone: invalid zone value: 'a..b'"),
        (["--zone=" + "a." * 100], "--zone: invalid zone value"),
        (["--zone=a b"], "--zone: invalid zone value: 'a b'"),
        (["--zone=a=heavy"], "--zone: invalid zone value: 'a=heavy'"),
        (["--zone=a=nan"], "--zone: invalid zone value: 'a=nan'"),
        (["--zone=a=inf"], "--zone: invalid zone value: 'a=inf'"),
        (["--zone=a", "--threshold=nan"], "--threshold: invalid number value: 'nan'"),
        (["--zone=a", "--code=127.0.0.2=x,nan"], "--code: invalid code value"),
        (["--zone=a=1,0"], "--zone: invalid zone value: 'a=1,0'"),
        (["--zone=a=1,2,\x07"], "--zone: invalid zone value"),
        (["--zone=a", "--zone=A."], "--zone: a zone is named twice"),
        (["--zone=a", "--code=127.0.0.2"], "--code: invalid code value: '127.0.0.2'"),
        (["--zone=a", "--code=192.0.2.1=x"], "--code: invalid code value"),
        (["--zone=a", "--code=b/127.0.0.2=x"], "--code: no --zone is named b"),
        (["--zone=a", "--allow=192.0.2.1/24"], "--allow"),
        (["--zone=a", "--resolver=dns.example.org"], "--resolver: invalid resolver value"),
        (["--zone=a", "--resolver=127.0.0.1@0"], "--resolver: invalid resolver value"),
        (["--zone=a", "--timeout=0"], "--timeout: invalid seconds value: '0'"),
        (["--zone=a", "--timeout=nan"], "--timeout: invalid seconds value: 'nan'"),
        (["--zone=a", "--action=burn"], "--action: invalid choice: 'burn'"),
        (["--zone=a", "--thres=1"], "unrecognized arguments: --thres=1"),
    ],
)
def test_wrong_options_end_with_status_2_and_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        load_example("rbl", *options)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.startswith("rbl.py: ")
    assert error.count("\n") == 1


def test_help_shows_the_smtpd_conf_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_example("rbl", "--help")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert 'filter rbl proc-exec "/usr/local/bin/greenfilter run' in out
    assert "--threshold SCORE" in out
