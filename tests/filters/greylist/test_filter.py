"""The filter in front of FakeSmtpd: who waits, what is learned, what happens without its store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from greenfilter.filters import greylist
from greenfilter.testing import FakeSmtpd
from tests.filters.support import begin, deliver, lines, log_all, try_once
from tests.support.dns import SERVFAIL, DnsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.redis import RedisServer


@pytest.fixture
def start(store_url: str, caplog: pytest.LogCaptureFixture) -> Callable[..., FakeSmtpd]:
    """Make a FakeSmtpd in front of the filter with some options; without SPF."""
    log_all(caplog)

    def make(*options: str, spf: bool = False, **settings: object) -> FakeSmtpd:
        words = ["--store", store_url, *options, *([] if spf else ["--no-spf"])]
        return FakeSmtpd(greylist.build(words), subsystems=("smtp-in", "smtp-out"))

    return make


@pytest.fixture
def dns_server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def test_a_first_try_is_deferred_and_a_retry_after_the_delay_is_let_in(start, caplog):
    with start() as smtpd:
        reply = try_once(smtpd)
        assert reply.rejected(451, "4.7.1 Greylisted, please try again in 5 minutes")
        smtpd.clock.advance(200)
        assert try_once(smtpd).rejected(451)
        smtpd.clock.advance(101)
        assert try_once(smtpd).ok
        assert try_once(smtpd).ok
    first, early, waited, known = lines(caplog, "greylist")
    assert first.split() == [
        *("defer", "reason=first-try", "wait=300", "client=192.0.2.10"),
        *("from=alice@example.net", "to=bob@example.org"),
    ]
    assert early.startswith("defer reason=too-early wait=")
    assert waited.startswith("pass reason=waited client=192.0.2.10")
    assert known.startswith("pass reason=known ")


def test_a_neighbour_counts_and_another_network_sender_or_recipient_does_not(start):
    with start() as smtpd:
        try_once(smtpd)
        smtpd.clock.advance(301)
        assert try_once(smtpd, "198.51.100.1:1").rejected(451)
        assert try_once(smtpd, sender="carol@example.net").rejected(451)
        assert try_once(smtpd, recipient="dave@example.org").rejected(451)
        assert try_once(smtpd, "192.0.2.200:1", "ALICE@example.net", "Bob@Example.ORG").ok


def test_the_size_of_networks_is_an_option(start):
    with start("--ipv4-prefix=32", "--ipv6-prefix=48") as smtpd:
        try_once(smtpd)
        try_once(smtpd, "[2001:db8:1:2::1]:1")
        smtpd.clock.advance(301)
        assert try_once(smtpd, "192.0.2.11:1").rejected(451)
        assert try_once(smtpd, "[2001:db8:1:99::1]:1").ok


def test_each_recipient_of_a_message_waits_for_itself(start):
    with start() as smtpd:
        try_once(smtpd)
        smtpd.clock.advance(301)
        session = begin(smtpd)
        assert session.rcpt_to("bob@example.org").ok
        assert session.rcpt_to("carol@example.org").rejected(451)
        assert session.data(b"Subject: x\n\n").ok
        assert len(smtpd.messages) == 1


def test_what_it_knows_outlives_the_filter_and_is_shared(start):
    with start() as smtpd:
        try_once(smtpd)
    with start() as smtpd:
        smtpd.clock.advance(301)
        assert try_once(smtpd).ok


def test_after_the_window_and_after_the_lifetime_all_begins_anew(start):
    with start("--delay=1m", "--window=10m", "--lifetime=1h") as smtpd:
        try_once(smtpd)
        smtpd.clock.advance(601)
        assert try_once(smtpd).rejected(451)
        smtpd.clock.advance(61)
        assert try_once(smtpd).ok
        smtpd.clock.advance(3601)
        assert try_once(smtpd).rejected(451)


def test_mail_of_this_host_of_local_networks_and_of_users_is_left_alone(start, caplog):
    with start("--local", "203.0.113.0/24") as smtpd:
        assert deliver(smtpd, "unix:/var/run/smtpd.sock").ok
        assert deliver(smtpd, "127.0.0.1:1").ok
        assert deliver(smtpd, "203.0.113.7:1").ok
        assert deliver(smtpd, user="alice").ok
        assert deliver(smtpd).rejected(451)
    assert len(lines(caplog, "greylist")) == 1


def test_fixed_white_lists(start, tmp_path, caplog):
    path = tmp_path / "clients"
    path.write_text("198.51.100.0/24 # a partner\nmailer.example\n")
    options = ["--allow-client", f"@{path}", "--allow-sender", "news@list.example"]
    options += ["--allow-sender", "bank.example", "--allow-recipient", "abuse@"]
    with start(*options) as smtpd:
        assert try_once(smtpd, "198.51.100.9:1").ok
        assert try_once(smtpd, rdns="mx1.Mailer.example").ok
        assert try_once(smtpd, rdns="mx1.notmailer.example").rejected(451)
        assert try_once(smtpd, sender="News@list.example").ok
        assert try_once(smtpd, sender="info@mail.bank.example").ok
        assert try_once(smtpd, sender="info@notbank.example").rejected(451)
        assert try_once(smtpd, recipient="abuse@example.org").ok
        assert try_once(smtpd, recipient="Postmaster@example.org").ok
    reasons = [line.split()[1] for line in lines(caplog, "greylist") if line.startswith("pass")]
    assert reasons == [
        "reason=client-listed",
        "reason=client-listed",
        "reason=sender-listed",
        "reason=sender-listed",
        "reason=recipient-listed",
        "reason=recipient-listed",
    ]


def test_white_lists_are_read_anew_and_a_broken_one_is_refused(start, tmp_path, caplog):
    clients, senders, recipients = (tmp_path / name for name in ("clients", "senders", "names"))
    for path in (clients, senders, recipients):
        path.write_text("")
    options = [f"--allow-client=@{clients}", f"--allow-sender=@{senders}"]
    with start(*options, f"--allow-recipient=@{recipients}") as smtpd:
        assert try_once(smtpd, "198.51.100.9:1").rejected(451)
        clients.write_text("198.51.100.0/24\n")
        assert try_once(smtpd, "198.51.100.9:1").ok
        senders.write_text("bank.example\n")
        assert try_once(smtpd, sender="info@bank.example").ok
        recipients.write_text("abuse@\n")
        assert try_once(smtpd, recipient="abuse@example.org").ok
        assert try_once(smtpd, recipient="postmaster@example.org").ok
        clients.write_text("203.0.113.0/24\n198.51.100.9/24\n")
        assert try_once(smtpd, "198.51.100.9:1").ok
        assert try_once(smtpd, "203.0.113.9:1").rejected(451)
        clients.write_text("203.0.113.0/24\n")
        assert try_once(smtpd, "198.51.100.9:1").rejected(451)
        assert try_once(smtpd, "203.0.113.9:1").ok
    [problem] = [text for text in caplog.messages if "goes on" in text]
    assert problem.startswith(f"{clients}:2: '198.51.100.9/24' is not a network")


def test_a_name_that_does_not_lead_back_is_no_name(start):
    with start("--allow-client", "mailer.example") as smtpd:
        session = smtpd.connect(rdns="mx1.mailer.example", fcrdns="fail")
        session.ehlo("mx1.mailer.example")
        session.mail_from("alice@example.net")
        assert session.rcpt_to("bob@example.org").rejected(451)


def test_a_network_that_has_delivered_is_known(start, caplog):
    with start("--learn-after=2") as smtpd:
        for number in range(2):
            deliver(smtpd, sender=f"{chr(97 + number)}@example.net")
        smtpd.clock.advance(301)
        assert deliver(smtpd, sender="a@example.net").ok
        assert try_once(smtpd, sender="c@example.net").rejected(451)
        assert deliver(smtpd, sender="b@example.net").ok
        assert try_once(smtpd, "192.0.2.99:1", sender="d@example.net").ok
        assert try_once(smtpd, "198.51.100.1:1", sender="d@example.net").rejected(451)
    assert any("pass reason=network-known" in line for line in lines(caplog, "greylist"))


def test_only_a_delivery_speaks_for_a_network(start):
    with start("--learn-after=1") as smtpd:
        try_once(smtpd)
        smtpd.clock.advance(301)
        for _ in range(3):
            assert try_once(smtpd).ok  # and never sends a message
        session = begin(smtpd)
        session.rcpt_to("bob@example.org")
        session.data_begin()
        session.disconnect()
        assert try_once(smtpd, sender="other@example.net").rejected(451)


def spf_options(dns_server: DnsServer) -> list[str]:
    return ["--resolver", f"127.0.0.1@{dns_server.port}", "--spf-timeout=2"]


POOL = {"example.net": {"TXT": "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all"}}


def test_a_retry_from_another_address_of_the_pool_counts_when_spf_passes(start, dns_server):
    dns_server.zones = {
        **POOL,
        "open.example": {"TXT": "v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all"},
    }
    with start(*spf_options(dns_server), spf=True) as smtpd:
        assert try_once(smtpd).rejected(451)
        assert try_once(smtpd, sender="x@open.example").rejected(451)
        assert try_once(smtpd, sender="x@none.example").rejected(451)
        smtpd.clock.advance(301)
        assert try_once(smtpd, "203.0.113.1:1").rejected(451, "5 minutes")  # not of the pool
        assert try_once(smtpd, "198.51.100.1:1").ok
        assert try_once(smtpd, "198.51.100.1:1", "x@open.example").rejected(451, "5 minutes")
        assert try_once(smtpd, "198.51.100.1:1", "x@none.example").rejected(451, "5 minutes")


def test_a_huge_spf_record_vouches_for_nobody(start, dns_server):
    others = "".join(f" ip4:10.0.{number}.0/24" for number in range(256))
    pool = "ip4:192.0.2.0/24 ip4:198.51.100.0/24"
    dns_server.zones = {"example.net": {"TXT": f"v=spf1 {pool}{others} -all"}}
    with start(*spf_options(dns_server), spf=True) as smtpd:
        assert try_once(smtpd).rejected(451)
        smtpd.clock.advance(301)
        assert try_once(smtpd, "198.51.100.1:1").rejected(451, "5 minutes")


def test_a_retry_counts_also_if_dns_failed_at_the_first_try_or_fails_at_the_second(
    start, dns_server
):
    with start(*spf_options(dns_server), spf=True) as smtpd:
        dns_server.zones = {"example.net": SERVFAIL}
        assert try_once(smtpd).rejected(451)
        dns_server.zones = dict(POOL)
        smtpd.clock.advance(301)
        assert try_once(smtpd).ok
        assert try_once(smtpd, sender="b@example.net").rejected(451)
        smtpd.clock.advance(301)
        dns_server.zones = {"example.net": SERVFAIL}
        assert try_once(smtpd, sender="b@example.net").ok


def test_the_null_sender_is_vouched_for_by_its_helo_name(start, dns_server):
    dns_server.zones = {"mx.example.net": {"TXT": "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.1 -all"}}
    with start(*spf_options(dns_server), spf=True) as smtpd:
        assert try_once(smtpd, sender="", helo="mx.example.net").rejected(451)
        smtpd.clock.advance(301)
        assert try_once(smtpd, "198.51.100.1:1", "", helo="mx.example.net").ok


def test_with_spf_pass_nobody_waits_whom_spf_vouches_for(start, dns_server, caplog):
    dns_server.zones = {**POOL, "all.example": {"TXT": "v=spf1 +all"}}
    with start(*spf_options(dns_server), "--spf-pass", spf=True) as smtpd:
        assert try_once(smtpd).ok
        assert try_once(smtpd, "203.0.113.1:1").rejected(451)
        assert try_once(smtpd, sender="x@all.example").rejected(451)
    assert lines(caplog, "greylist")[0].startswith("pass reason=spf-pass ")


@pytest.mark.parametrize("how", ["authenticated", "smtp-out"])
def test_a_domain_that_our_users_write_to_may_answer_at_once_if_spf_vouches(
    start, dns_server, how, caplog
):
    dns_server.zones = dict(POOL)
    with start(*spf_options(dns_server), spf=True) as smtpd:
        if how == "authenticated":
            assert deliver(smtpd, sender="us@example.org", recipients="x@example.net", user="us").ok
        else:
            out = smtpd.connect_out()
            out.identify()
            out.tx("us@example.org", "x@example.net")
            smtpd.settle()
        assert try_once(smtpd, "203.0.113.1:1").rejected(451)  # SPF does not vouch
        assert try_once(smtpd).ok
    assert "pass reason=correspondent " in lines(caplog, "greylist")[-1]


def test_a_bounce_teaches_nothing_and_learning_can_be_turned_off(start, dns_server):
    dns_server.zones = dict(POOL)
    with start(*spf_options(dns_server), spf=True) as smtpd:
        out = smtpd.connect_out()
        out.identify()
        out.tx("", "x@example.net")
        assert deliver(smtpd, "unix:/var/run/smtpd.sock", "", "x@example.net").ok
        smtpd.settle()
        assert try_once(smtpd).rejected(451)
    with start(*spf_options(dns_server), "--no-correspondents", spf=True) as smtpd:
        assert deliver(smtpd, "127.0.0.1:1", "us@example.org", "x@example.net").ok
        assert try_once(smtpd).rejected(451)


def test_a_silent_dns_server_costs_a_client_the_time_limit_at_most(start, dns_server):
    dns_server.failure = "DROP"
    with start(
        "--resolver", f"127.0.0.1@{dns_server.port}", "--spf-timeout=0.5", spf=True
    ) as smtpd:
        assert try_once(smtpd).rejected(451)


def test_log_only_lets_all_pass_and_says_what_it_would_do(start, caplog):
    with start("--log-only") as smtpd:
        assert deliver(smtpd).ok
    [line] = lines(caplog, "greylist")
    assert line.startswith("defer log-only=yes reason=first-try ")


def test_odd_addresses_are_kept_apart_and_logged_in_one_line(start, caplog):
    with start() as smtpd:
        for sender in ("a|b@example.net", "a@example.net", "a%b{}'=`@example.net"):
            assert try_once(smtpd, sender=sender, recipient="b|c@example.org").rejected(451)
        assert try_once(smtpd, sender="a@example.net", recipient="c@example.org").rejected(451)
        smtpd.clock.advance(301)
        assert try_once(smtpd, sender="a|b@example.net", recipient="b|c@example.org").ok
        assert try_once(smtpd, sender="a@example.net", recipient="b|c|d@example.org").rejected(451)
    assert all("\n" not in line for line in lines(caplog, "greylist"))


def test_an_outage_of_redis_lets_mail_pass_and_what_was_known_is_known_afterwards(
    redis_server: RedisServer, caplog
):
    log_all(caplog)
    words = ["--store", redis_server.url, "--store-timeout=0.5", "--no-spf"]
    with FakeSmtpd(greylist.build(words)) as smtpd:
        assert try_once(smtpd).rejected(451)
        redis_server.stop()
        for number in range(5):
            assert deliver(smtpd, sender=f"x{number}@example.net").ok
        away = [r for r in caplog.records if "is away" in r.getMessage()]
        assert len(away) == 1
        assert "pass reason=store-away " in caplog.text
        redis_server.start()
        smtpd.clock.advance(301)
        assert try_once(smtpd).ok
        assert try_once(smtpd, sender="new@example.net").rejected(451)
        redis_server.pause()
        assert deliver(smtpd, sender="y@example.net").ok
        redis_server.resume()
        smtpd.clock.advance(5)
        assert try_once(smtpd, sender="new@example.net").rejected(451)


def test_a_full_disk_lets_mail_pass(small_disk, caplog):
    words = ["--store", f"sqlite:{small_disk.path}/greylist.sqlite", "--no-spf"]
    with FakeSmtpd(greylist.build(words)) as smtpd:
        assert try_once(smtpd).rejected(451)
        small_disk.fill()
        replies = {deliver(smtpd, sender=f"{'x' * n}@example.net").code for n in range(1, 60)}
        assert 250 in replies
        assert "is away" in caplog.text
        small_disk.empty()
        smtpd.clock.advance(301)
        assert try_once(smtpd).ok


def test_on_a_server_without_relay_filter_it_runs_all_the_same(store_url):
    with FakeSmtpd(greylist.build(["--store", store_url, "--no-spf"]), version="0.6") as smtpd:
        assert try_once(smtpd).rejected(451)
