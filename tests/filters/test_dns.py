"""Look-ups: what is an answer and what a failure, what is kept, how much one message may ask."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from dnslib import QTYPE, RR, SOA, DNSRecord

from greenfilter.errors import UsageError
from greenfilter.filters._dns import Answer, DnsError, DnsLimit, Resolver
from greenfilter.filters._options import Options, Server
from tests.support.dns import DROP, REFUSED, SERVFAIL, DnsServer
from tests.support.wait import wait_until

NAME = "mail.example.org"


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer({NAME: {"A": "192.0.2.1", "TXT": ["one", "x" * 300]}}) as server:
        yield server


def resolver(dns: DnsServer, timeout: float = 5.0, **settings: Any) -> Resolver:
    return Resolver([Server("127.0.0.1", dns.port)], timeout, **settings)


def addresses(answer: Answer) -> list[str]:
    return [record.to_text() for record in answer.records]


def test_records_are_found_whatever_the_case_and_the_final_dot(dns: DnsServer) -> None:
    asked = resolver(dns)
    for name in (NAME, NAME.upper(), f"{NAME}."):
        assert addresses(asked.answer(name, "A")) == ["192.0.2.1"]
    assert dns.count(NAME, "A") == 1


def test_the_strings_of_a_text_record_are_put_together(dns: DnsServer) -> None:
    assert sorted(resolver(dns).texts(NAME)) == [b"one", b"x" * 300]


@pytest.mark.parametrize(("name", "exists"), [("no.example.org", False), (NAME, True)])
def test_nothing_there_is_an_answer(dns: DnsServer, name: str, exists: bool) -> None:
    answer = resolver(dns).answer(name, "MX")
    assert (answer.records, answer.exists) == ((), exists)


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", "y." * 128, "", "\ud800.example"])
def test_what_can_be_no_name_does_not_exist_and_is_not_asked(dns: DnsServer, name: str) -> None:
    assert resolver(dns).query(name, "A") == []
    assert [query.name for query in dns.queries] in ([], [""])


@pytest.mark.parametrize("failure", [SERVFAIL, REFUSED, DROP])
def test_a_failure_is_an_error_and_is_kept_for_a_while(dns: DnsServer, failure: str) -> None:
    dns.failure = failure
    asked = resolver(dns, 0.2)
    with pytest.raises(DnsError, match=NAME):
        asked.answer(NAME, "A")
    count = len(dns.queries)
    with pytest.raises(DnsError, match=NAME):
        asked.answer(NAME, "A")
    assert len(dns.queries) == count
    asked.forget()
    dns.failure = None
    assert addresses(asked.answer(NAME, "A")) == ["192.0.2.1"]


def test_the_next_server_is_asked_when_one_is_silent(dns: DnsServer) -> None:
    with DnsServer(failure=DROP) as silent:
        servers = [Server("127.0.0.1", silent.port), Server("127.0.0.1", dns.port)]
        assert addresses(Resolver(servers, 2.0).answer(NAME, "A")) == ["192.0.2.1"]
        assert silent.queries


class SoaServer(DnsServer):
    """Answers "no such name" with a SOA record, as real zones do."""

    def answer(self, packet: bytes, transport: str) -> bytes | None:
        reply = DNSRecord.parse(super().answer(packet, transport))
        if not reply.rr:
            reply.add_auth(
                RR("example.org", QTYPE.SOA, ttl=900, rdata=SOA(times=(1, 2, 3, 4, 600)))
            )
        packed: bytes = reply.pack()
        return packed


@pytest.mark.parametrize(("bounds", "kept"), [((1, 3600), 60), ((100, 3600), 100), ((1, 30), 30)])
def test_an_answer_is_kept_for_its_ttl_within_bounds(
    dns: DnsServer, bounds: tuple[float, float], kept: float
) -> None:
    assert resolver(dns, ttl=bounds).answer(NAME, "A").ttl == kept


def test_nothing_there_is_kept_as_long_as_the_soa_record_says() -> None:
    with SoaServer() as dns:
        assert resolver(dns).answer(NAME, "A").ttl == 600


def test_nothing_there_without_a_soa_record_is_kept_for_the_least_time(dns: DnsServer) -> None:
    assert resolver(dns, ttl=(7.0, 100.0)).answer("no.example.org", "A").ttl == 7.0


def in_threads(count: int, call: Any) -> list[Any]:
    """Call a function at the same time in several threads, and give what came of it."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except DnsError as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


def test_many_who_want_to_know_the_same_ask_once(dns: DnsServer) -> None:
    dns.delay = 0.3
    asked = resolver(dns)
    answers = in_threads(20, lambda: addresses(asked.answer(NAME, "A")))
    assert answers == [["192.0.2.1"]] * 20
    assert dns.count(NAME) == 1


def test_many_who_want_to_know_the_same_learn_of_one_failure(dns: DnsServer) -> None:
    dns.delay, dns.failure = 0.3, REFUSED
    asked = resolver(dns)
    errors = in_threads(20, lambda: asked.answer(NAME, "A"))
    assert {type(error) for error in errors} == {DnsError}
    assert len(errors) == 20
    assert dns.count(NAME) == 1


def test_who_is_in_a_hurry_does_not_spoil_it_for_others(dns: DnsServer) -> None:
    dns.failure = DROP
    asked = resolver(dns, 10.0)
    hasty: list[Any] = []

    def hurry() -> None:
        with pytest.raises(DnsError, match=r"no answer within 0\.3 s"):
            asked.answer(NAME, "A", 0.3)
        hasty.append("gave up")

    thread = threading.Thread(target=hurry)
    thread.start()
    wait_until(lambda: dns.count(NAME) == 1, 10, "the question")
    dns.failure = None
    assert addresses(asked.answer(NAME, "A")) == ["192.0.2.1"]
    thread.join(10)
    assert hasty == ["gave up"]


def test_a_message_may_ask_so_many_different_questions(dns: DnsServer) -> None:
    questions = resolver(dns).message(2, 10.0)
    for _ in range(3):
        questions.answer(NAME, "A")
        questions.texts(NAME)
    with pytest.raises(DnsLimit, match="more than 2 questions for one message"):
        questions.answer("other.example.org", "A")
    assert dns.count("other.example.org") == 0


def test_a_message_may_ask_for_so_long_whatever_is_known_already(dns: DnsServer) -> None:
    asked = resolver(dns)
    asked.answer(NAME, "A")
    dns.failure = DROP
    questions = asked.message(10, 0.3)
    begun = time.monotonic()
    with pytest.raises(DnsError):
        questions.answer("other.example.org", "A")
    with pytest.raises(DnsLimit, match=r"0\.3 s for the questions of one message are over"):
        questions.answer("third.example.org", "A")
    assert time.monotonic() - begun < 5.0
    assert addresses(questions.answer(NAME, "A")) == ["192.0.2.1"]


def test_a_resolver_needs_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(*_: Any, **__: Any) -> None:
        import dns.resolver

        raise dns.resolver.NoResolverConfiguration("cannot open /etc/resolv.conf")

    monkeypatch.setattr("dns.resolver.Resolver.read_resolv_conf", no_file)
    with pytest.raises(UsageError, match="use --resolver"):
        Resolver()


def test_servers_are_an_option() -> None:
    options = Options("x", "X.", "")
    options.add_resolver()
    parsed = options.parse(["--resolver=192.0.2.53", "--resolver", "::1@5353"])
    assert parsed.resolver == [("192.0.2.53", 53), ("::1", 5353)]
    for wrong in ("dns.example.org", "192.0.2.1@0", "192.0.2.1@x"):
        text = r"is not (an address or ADDRESS@PORT|a number from 1 to)"
        with pytest.raises(UsageError, match=text):
            options.parse(["--resolver", wrong])


IN_GREENLETS_AND_A_THREAD = """
import sys
from greenfilter._waiting import patch
patch()
import gevent, threading
from greenfilter.filters._dns import Resolver
from greenfilter.filters._options import Server

asked = Resolver([Server("127.0.0.1", int(sys.argv[1]))], 20.0)
found = []
thread = threading.Thread(target=lambda: found.append(asked.query("mail.example.org", "A")))
thread.start()
first = gevent.spawn(asked.query, "mail.example.org", "A")
others = [gevent.spawn(asked.query, "mail.example.org", "A") for _ in range(50)]
more = [gevent.spawn(asked.query, f"{n}.example.org", "A") for n in range(50)]
gevent.sleep(0.1)
first.kill()  # as a handler whose deadline has passed
gevent.joinall([*others, *more])
thread.join()
print(len([each for each in others if len(each.value) == 1]), len(found))
"""


def test_greenlets_and_threads_wait_for_the_same_answer(dns: DnsServer) -> None:
    dns.delay = 1.0
    begun = time.monotonic()
    command = [sys.executable, "-c", IN_GREENLETS_AND_A_THREAD, str(dns.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.stdout.strip() == "50 1", done.stderr
    assert time.monotonic() - begun < 25.0, "they waited one after the other"
    assert dns.count(NAME) <= 2  # once more if who had asked was ended
