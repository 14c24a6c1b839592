"""Lists against a DNS server on loopback: what is asked, what an answer means, what is kept."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from greenfilter.errors import UsageError
from greenfilter.filters import rbl
from greenfilter.filters._clients import client_ip
from greenfilter.filters._rbl import subjects
from greenfilter.filters._rbl.lists import Lists
from greenfilter.protocol import Address
from tests.support.dns import DROP, REFUSED, SERVFAIL, DnsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ZEN, BL = "zen.example.org", "bl.example.net"
V4 = "2.0.0.192"
LISTED = ipaddress.ip_address("192.0.0.2")
LISTED6 = ipaddress.ip_address("2001:db8::abcd")
NIBBLES = "d.c.b.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"


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


class Asked(Lists):
    """Lists, asked about one address at a time."""

    def of(self, ip: Any) -> tuple[float, list[str]] | None:
        found = self.look_up([subjects.client(ip)])
        return found and (found.score, [hit.text for hit in found.hits])


def asked(dns: DnsServer, *options: str) -> Asked:
    zones = [] if any("zone=" in option for option in options) else [f"--zone={ZEN}=5"]
    servers = [] if any("resolver=" in option for option in options) else [f"127.0.0.1@{dns.port}"]
    parsed = rbl.parse([*(f"--resolver={server}" for server in servers), *zones, *options])
    made = rbl.make_lists(parsed)
    return Asked(made.zones, dict(parsed.code), parsed.threshold)


@pytest.mark.parametrize(
    ("ip", "name"),
    [
        (LISTED, f"{V4}.{ZEN}"),
        (LISTED6, f"{NIBBLES}.{ZEN}"),
    ],
)
def test_a_client_is_asked_for_by_octets_or_nibbles(dns: DnsServer, ip: Any, name: str) -> None:
    dns.zones[name] = {"A": "127.0.0.2"}
    assert asked(dns).of(ip) == (5.0, [f"{ZEN} (127.0.0.2)"])
    assert dns.count(name, "A") == 1


def test_a_client_on_no_list_passes(dns: DnsServer) -> None:
    lists = asked(dns)
    assert lists.of(ipaddress.ip_address("192.0.0.3")) is None
    assert lists.of(ipaddress.ip_address("2001:db8::1")) is None
    assert len(clients_asked(dns)) == 2


def test_weights_of_zones_add_up_to_the_threshold(dns: DnsServer) -> None:
    zones = [f"--zone={ZEN}=5", f"--zone={BL}=2.5"]
    both = (7.5, [f"{ZEN} (127.0.0.2)", f"{BL} (127.0.0.9)"])
    assert asked(dns, *zones, "--threshold=7.5").of(LISTED) == both
    assert asked(dns, *zones, "--threshold=7.6").of(LISTED) is None


def test_a_list_of_good_clients_counts_against_the_others(dns: DnsServer) -> None:
    zones = [f"--zone={ZEN}=5", f"--zone={BL}=-5"]
    assert asked(dns, *zones).of(LISTED) is None


def test_the_weightiest_list_comes_first(dns: DnsServer) -> None:
    dns.zones[f"{V4}.good.example"] = {"A": "127.0.0.3"}
    lists = asked(dns, "--zone=good.example=-1", f"--zone={BL}=2", f"--zone={ZEN}=5")
    assert lists.of(LISTED) == (
        6.0,
        [f"{ZEN} (127.0.0.2)", f"{BL} (127.0.0.9)", "good.example (127.0.0.3)"],
    )


def test_return_codes_have_names_and_weights_for_all_zones_or_one(dns: DnsServer) -> None:
    dns.zones[f"{V4}.{ZEN}"] = {"A": ["127.0.0.10", "127.0.0.2"]}
    dns.zones[f"{V4}.{BL}"] = {"A": "127.0.0.2"}
    found = asked(
        dns,
        f"--zone={ZEN}=5",
        f"--zone={BL}=1",
        "--code=127.0.0.2=spam-source",
        f"--code={ZEN}/127.0.0.10=dynamic,7",
    ).of(LISTED)
    zen = f"{ZEN} (127.0.0.10 dynamic, 127.0.0.2 spam-source)"
    assert found == (8.0, [zen, f"{BL} (127.0.0.2 spam-source)"])


def test_a_code_of_weight_0_does_not_count(dns: DnsServer) -> None:
    assert asked(dns, "--code=127.0.0.2=harmless,0").of(LISTED) is None


@pytest.mark.parametrize("action", ["", "--code=127.0.0.2=harmless,0"])
def test_a_code_of_weight_0_is_not_named(dns: DnsServer, action: str) -> None:
    dns.zones[f"{V4}.{ZEN}"] = {"A": ["127.0.0.4", "127.0.0.2"]}
    lists = asked(dns, *filter(None, [action]), f"--zone={ZEN}=5", f"--zone={BL}=0")
    codes = "127.0.0.4" if action else "127.0.0.2, 127.0.0.4"
    assert lists.of(LISTED) == (5.0, [f"{ZEN} ({codes})"])


ERRORS = ["127.255.255.254", "127.0.0.255", "127.0.1.255", "127.0.0.1", "192.0.2.80", "128.0.0.1"]


@pytest.mark.parametrize("answer", ERRORS)
def test_an_error_of_a_list_of_good_clients_does_not_count(dns: DnsServer, answer: str) -> None:
    dns.zones[f"{V4}.{BL}"] = {"A": answer}
    lists = asked(dns, f"--zone={ZEN}=5", f"--zone={BL}=-5")
    assert lists.of(LISTED) == (5.0, [f"{ZEN} (127.0.0.2)"])


@pytest.mark.parametrize("answer", ERRORS)
def test_an_answer_that_means_an_error_is_no_listing(
    dns: DnsServer, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    dns.zones[f"{V4}.{ZEN}"] = {"A": answer}
    assert asked(dns).of(LISTED) is None
    assert f"{ZEN}: answered {answer}, which is an error" in caplog.text


def test_a_name_without_address_records_is_no_listing(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    dns.zones[f"{V4}.{ZEN}"] = {"TXT": "only text"}
    dns.zones[f"2.0.0.127.{ZEN}"] = {"A": "127.0.0.2"}
    assert asked(dns).of(LISTED) is None
    assert not caplog.records


@pytest.mark.parametrize("failure", [SERVFAIL, REFUSED, DROP])
def test_clients_pass_when_dns_fails_and_one_line_says_so(
    dns: DnsServer, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    dns.failure = failure
    lists = asked(dns, "--timeout=0.1")
    for number in range(1, 10):
        assert lists.of(ipaddress.ip_address(f"192.0.0.{number}")) is None
    assert len(caplog.records) == 1
    assert f"list {ZEN}: " in caplog.text


def test_a_zone_that_failed_three_times_in_a_row_is_left_alone(dns: DnsServer) -> None:
    dns.failure = REFUSED
    zones = [f"--zone={ZEN}=5", f"--zone={BL}=5"]
    lists = asked(dns, *zones)
    for number in range(10, 13):
        lists.of(ipaddress.ip_address(f"192.0.0.{number}"))
    dns.failure = None
    dns.queries.clear()
    assert lists.of(LISTED) is None
    assert not dns.queries

    for zone in lists.zones:  # the minute has passed
        zone.paused_until = 0.0
    assert lists.of(LISTED) == (10.0, [f"{ZEN} (127.0.0.2)", f"{BL} (127.0.0.9)"])
    assert [zone.failures for zone in lists.zones] == [0, 0]


def test_one_zone_that_is_down_leaves_the_others_in_force(dns: DnsServer) -> None:
    dns.zones[f"{V4}.{ZEN}"] = DROP
    zones = [f"--zone={ZEN}=5,0.1", f"--zone={BL}=5"]
    assert asked(dns, *zones).of(LISTED) == (5.0, [f"{BL} (127.0.0.9)"])


def test_a_failed_question_is_not_asked_again_at_once(dns: DnsServer) -> None:
    dns.failure = SERVFAIL
    lists = asked(dns)
    lists.of(LISTED)
    dns.queries.clear()
    lists.of(LISTED)
    assert not dns.queries


def test_a_dead_resolver_is_passed_over_within_the_time_limit(dns: DnsServer) -> None:
    with DnsServer(failure=DROP) as dead:
        servers = [f"--resolver=127.0.0.1@{port}" for port in (dead.port, dns.port)]
        assert asked(dns, *servers, f"--zone={ZEN}=5,2").of(LISTED) is not None
        assert dead.queries


def test_answers_are_kept(dns: DnsServer) -> None:
    lists = asked(dns)
    first = lists.of(LISTED)
    assert lists.of(LISTED) == first
    assert dns.count(f"{V4}.{ZEN}") == 1


def test_one_question_is_in_flight_however_many_ask(dns: DnsServer) -> None:
    lists = asked(dns)
    gevent.joinall([gevent.spawn(lists.of, LISTED) for _ in range(10)])
    assert dns.count(f"{V4}.{ZEN}") == 1


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
        lists = asked(dns)
        dns.zones[f"{subjects.client(ip).entry}.{ZEN}"] = {"A": "127.0.0.2"}
        for _ in range(3):
            assert lists.of(ip) is None
        assert f"list {ZEN} has " in caplog.text
        assert "left alone for 60 minutes" in caplog.text
        assert len(caplog.records) == 1
        before = len(dns.queries)
        lists.of(ipaddress.ip_address("192.0.0.77"))
        assert len(dns.queries) == before

        dns.ended = False
        lists.zones[0].forget()  # the hour has passed
        lists.zones[0].dead_until = 0.0
        lists.zones[0].test_at.clear()
        assert lists.of(ip) == (5.0, [f"{ZEN} (127.0.0.2)"])


def test_a_list_without_its_test_entry_is_believed_and_told_of(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    del dns.zones[f"2.0.0.127.{ZEN}"]
    lists = asked(dns)
    for _ in range(3):
        assert lists.of(LISTED) == (5.0, [f"{ZEN} (127.0.0.2)"])
    assert [record.getMessage() for record in caplog.records] == [
        f"list {ZEN} has no test entry 127.0.0.2: it may be misspelt, or have ended"
    ]


def test_test_entries_are_asked_for_once_an_hour_and_in_a_minute_if_that_failed(
    dns: DnsServer,
) -> None:
    dns.zones[f"1.0.0.127.{ZEN}"] = SERVFAIL
    lists = asked(dns)
    assert lists.of(LISTED) is not None
    left = lists.zones[0].test_at[4] - time.monotonic()
    assert 0 < left <= 60
    del dns.zones[f"1.0.0.127.{ZEN}"]
    lists.zones[0].forget()
    lists.zones[0].test_at.clear()
    for _ in range(3):
        assert lists.of(LISTED) is not None
    left = lists.zones[0].test_at[4] - time.monotonic()
    assert 3500 < left <= 3600
    assert dns.count(f"2.0.0.127.{ZEN}") == 2


DBL = "dbl.example.com"


@pytest.fixture
def dbl() -> Iterator[DnsServer]:
    """A server with a list of domains."""
    names = {"test": "127.0.1.2", "spam.example": "127.0.1.2", "bot.example": "127.0.1.6"}
    zones = {f"{name}.{DBL}": {"A": code} for name, code in names.items()}
    with DnsServer({**zones, f"{V4}.{ZEN}": {"A": "127.0.0.2"}}) as server:
        yield server


def named(**names: str) -> list[subjects.Subject]:
    """What lists of domains are asked about, besides the client."""
    found = [subjects.domain(what, name) for what, name in names.items()]
    return [subjects.client(LISTED), *filter(None, found)]


@pytest.mark.parametrize("what", ["sender", "helo", "rdns"])
@pytest.mark.parametrize("name", ["spam.example", "Spam.Example", "spam.example."])
def test_a_name_is_looked_up_in_lists_of_domains(dbl: DnsServer, what: str, name: str) -> None:
    found = asked(dbl, f"--domain-zone={DBL}=3").look_up(named(**{what: name}))
    assert found is not None
    assert (found.score, str(found)) == (3.0, f"{DBL} ({what} spam.example: 127.0.1.2)")
    assert found.reason == f"spam.example is listed by {found}"
    assert dbl.count(f"{V4}.{DBL}") == 0


def test_a_list_counts_once_by_what_weighs_most(dbl: DnsServer) -> None:
    options = (f"--zone={ZEN}=5", f"--domain-zone={DBL}=3", "--code=127.0.1.6=bot,4")
    found = asked(dbl, *options).look_up(named(sender="spam.example", helo="bot.example"))
    assert found is not None
    assert found.score == 9.0
    assert str(found) == f"{ZEN} (127.0.0.2), {DBL} (helo bot.example: 127.0.1.6 bot)"
    assert dbl.count(f"spam.example.{ZEN}") == 0


@pytest.mark.parametrize(
    "name", ["", "localhost", "[192.0.2.1]", "192.0.2.1", "<unknown>", "a b.example", "a..example",
             "x" * 64 + ".example", "[IPv6:2001:db8::1]", "b\ufffdd\ud800.example"],
)  # fmt: skip
def test_what_is_no_name_of_a_domain_is_not_asked_about(dbl: DnsServer, name: str) -> None:
    assert asked(dbl, f"--domain-zone={DBL}").look_up(named(helo=name)) is None
    assert not clients_asked(dbl) or not dbl.count(f"{name}.{DBL}")


def test_a_name_that_makes_too_long_a_question_is_not_asked_about(dbl: DnsServer) -> None:
    name = "spam." * 47 + "example"
    assert asked(dbl, f"--domain-zone={DBL}").look_up(named(helo=name)) is None
    assert dbl.count(f"{name}.{DBL}") == 0


def test_an_international_domain_is_asked_about_as_a_labels(dbl: DnsServer) -> None:
    dbl.zones[f"xn--bcher-kva.example.{DBL}"] = {"A": "127.0.1.2"}
    assert asked(dbl, f"--domain-zone={DBL}").look_up(named(sender="Bücher.example")) is not None


def test_a_list_of_all_domains_is_not_believed(
    dbl: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    dbl.zones[f"invalid.{DBL}"] = {"A": "127.0.1.2"}
    assert asked(dbl, f"--domain-zone={DBL}").look_up(named(sender="spam.example")) is None
    assert f"list {DBL} has invalid, so anything" in caplog.text


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
        assert asked(dns, f"--zone={zone}").zones[0].shown == shown


@pytest.mark.parametrize("failure", [SERVFAIL, REFUSED, DROP, "127.255.255.254", "world"])
def test_the_log_does_not_tell_the_key(failure: str, caplog: pytest.LogCaptureFixture) -> None:
    key = "q7w3e9r5t1y8u2i6o4pazsxdcf"
    caplog.set_level("DEBUG", "greenfilter")
    name = f"{V4}.{key}.zen.example"
    with DnsServer({name: {"A": failure}} if failure[0].isdigit() else {}) as dns:
        if failure == "world":
            dns.zones[f"1.0.0.127.{key}.zen.example"] = {"A": "127.0.0.2"}
        elif not failure[0].isdigit():
            dns.failure = failure
        lists = asked(dns, f"--zone={key}.zen.example=5,0.2")
        assert lists.of(LISTED) is None
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
def test_ip_address_of_a_client(wire: str, ip: str) -> None:
    assert str(client_ip(Address(wire))) == ip


def test_headers_of_the_name_are_removed_from_the_header_only() -> None:
    lines = [
        *(b"Received: x", b"\tX-Blocklist: folded", b"x-BLOCKLIST : forged", b" folded", b"\tmore"),
        *(b"X-Blocklists: other", b"Subject: s", b"X-Blocklist:", b"", b"X-Blocklist: body", b" x"),
    ]
    assert list(rbl.without_header(lines, b"X-Blocklist")) == [
        *(b"Received: x", b"\tX-Blocklist: folded", b"X-Blocklists: other", b"Subject: s"),
        *(b"", b"X-Blocklist: body", b" x"),
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "give one --zone or --domain-zone at least"),
        (["--domain-zone="], "--domain-zone: '' is not valid"),
        (["--zone=a", "--domain-zone=A"], "a zone is named twice"),
        (["--zone=a", "--domain-of=sender,cc"], "is not valid"),
        (["--domain-zone=a", "--domain-of=helo", "--action=disconnect"], "no name but rdns"),
        (["--zone="], "--zone: '' is not valid"),
        (["--zone=a..b"], "--zone: 'a..b' is not valid"),
        (["--zone=" + "a." * 100], "is not valid"),
        (["--zone=a b"], "--zone: 'a b' is not valid"),
        (["--zone=a=heavy"], "--zone: 'a=heavy' is not valid"),
        (["--zone=a=nan"], "--zone: 'a=nan' is not valid"),
        (["--zone=a=inf"], "--zone: 'a=inf' is not valid"),
        (["--zone=a", "--threshold=nan"], "--threshold: 'nan' is not valid"),
        (["--zone=a", "--code=127.0.0.2=x,nan"], "is not valid"),
        (["--zone=a=1,0"], "--zone: '0' is out of range"),
        (["--zone=a=1,2,\x07"], "is not valid"),
        (["--zone=a", "--zone=A."], "--zone: a zone is named twice"),
        (["--zone=a", "--code=127.0.0.2"], "--code: '127.0.0.2' is not valid"),
        (["--zone=a", "--code=192.0.2.1=x"], "is not valid"),
        (["--zone=a", "--code=b/127.0.0.2=x"], "--code: no --zone is named b"),
        (["--zone=a", "--allow=192.0.2.1/24"], "--allow: '192.0.2.1/24' is not a network"),
        (
            ["--zone=a", "--resolver=dns.example.org"],
            "--resolver: 'dns.example.org' is not an address",
        ),
        (["--zone=a", "--resolver=127.0.0.1@0"], "--resolver: '0' is not a number"),
        (["--zone=a", "--timeout=0"], "--timeout: '0' is out of range"),
        (["--zone=a", "--timeout=nan"], "--timeout: 'nan' is not a time"),
        (["--zone=a", "--action=burn"], "--action: invalid choice: 'burn'"),
        (["--zone=a", "--thres=1"], "unrecognized arguments: --thres=1"),
    ],
)
def test_wrong_options_are_told_in_one_line(options: list[str], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        rbl.build(options)
    error = str(caught.value)
    assert problem in error
    assert error.startswith("rbl: ")
    assert "\n" not in error


def test_help_shows_the_smtpd_conf_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        rbl.build(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert 'filter "rbl" proc-exec "/usr/local/bin/greenfilter run rbl ' in out
    assert "--threshold SCORE" in out
