"""SPF, by the suite of RFC 7208 and some cases of our own."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import dns.rdata
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from greenfilter.filters._auth_verify.sender import check_sender
from greenfilter.filters._dns import Answer, DnsError, Questions

from .questions import txt

SUITE = Path(__file__).parents[2] / "data/suites/spf/rfc7208-tests.yml"
# PyYAML's resolver makes dates and numbers of nothing here.
CASES: list[Any] = [
    pytest.param(test, scenario["zonedata"], id=f"{scenario['description']}: {name}")
    for scenario in yaml.safe_load_all(SUITE.read_text())
    for name, test in scenario["tests"].items()
]


class ZoneQuestions(Questions):
    """DNS as the suite writes it; CNAMEs are followed as a resolver does."""

    def __init__(self, zone: dict[str, Any]) -> None:
        self._zone = {name.lower(): records for name, records in zone.items()}
        self.asked: list[tuple[str, str]] = []

    def answer(self, name: str, type: str) -> Answer:
        self.asked.append((name, type))
        for _ in range(10):
            records = self._zone.get(name.rstrip(".").lower(), [])
            found = [each[type] for each in _dicts(records) if type in each]
            if type == "TXT" and not found:  # the suite says so
                found = [each["SPF"] for each in _dicts(records) if "SPF" in each]
            found = [value for value in found if value != "NONE"]
            if not found and "TIMEOUT" in records:
                raise DnsError(f"{name}: no answer in time")
            aliases = [each["CNAME"] for each in _dicts(records) if "CNAME" in each]
            if found or not aliases:
                return Answer(tuple(_rdata(type, value) for value in found), bool(records), 60.0)
            name = aliases[0]
        raise DnsError(f"{name}: a chain of aliases that does not end")


def _dicts(records: list[Any]) -> list[dict[str, Any]]:
    return [each for each in records if isinstance(each, dict)]


def _rdata(type: str, value: Any) -> Any:
    if type == "TXT":
        strings = value or [""]  # none at all is not legal
        if isinstance(value, str):
            strings = [value[at : at + 255] for at in range(0, len(value), 255)] or [""]
        made = txt("")
        return made.replace(strings=tuple(text.encode("latin-1") for text in strings))
    if type == "MX":
        value = f"{value[0]} {value[1].rstrip('.') or ''}."
    if type == "PTR":
        value = f"{value.rstrip('.')}."
    return dns.rdata.from_text("IN", type, value)


@pytest.mark.parametrize(("test", "zone"), CASES)
def test_a_case_of_the_suite(test, zone):
    ip = ipaddress.ip_address(test["host"])
    found = check_sender(ip, test["mailfrom"], test["helo"], ZoneQuestions(zone))
    expected = test["result"]
    assert found.result in ([expected] if isinstance(expected, str) else expected)


def check(record: str, *, mail_from: str = "a@example.com", helo: str = "mx.example.com") -> Any:
    zone = {"example.com": [{"TXT": record}], "mx.example.com": [{"TXT": record}]}
    return check_sender(ipaddress.ip_address("192.0.2.1"), mail_from, helo, ZoneQuestions(zone))


def test_the_null_sender_is_checked_by_its_helo_name():
    found = check("v=spf1 ip4:192.0.2.1 -all", mail_from="", helo="MX.Example.COM.")
    assert found == ("pass", "mx.example.com", "helo", "")


@pytest.mark.parametrize("helo", ["", "localhost", "[192.0.2.1]", "a..b", "-x.example", "x" * 300])
def test_a_helo_that_is_no_domain_is_none(helo):
    found = check("v=spf1 +all", mail_from="", helo=helo)
    assert (found.result, found.identity) == ("none", "helo")


def test_a_domain_in_unicode_is_asked_by_its_a_labels():
    zone = {"xn--bcher-kva.example": [{"TXT": "v=spf1 +all"}]}
    ip = ipaddress.ip_address("192.0.2.1")
    found = check_sender(ip, "a@Bücher.example", "mx.example", ZoneQuestions(zone))
    assert found == ("pass", "xn--bcher-kva.example", "mailfrom", "")


def test_an_explanation_is_not_asked_for():
    zone = {"example.com": [{"TXT": "v=spf1 -all exp=why.example.com"}]}
    questions = ZoneQuestions(zone)
    ip = ipaddress.ip_address("192.0.2.1")
    assert check_sender(ip, "a@example.com", "mx.example", questions).result == "fail"
    assert questions.asked == [("example.com", "TXT")]


def test_a_broken_record_says_why():
    found = check("v=spf1 ip4:300.1.1.1 -all")
    assert found.result == "permerror"
    assert "Invalid IP4 address" in found.reason


def test_a_huge_record_is_not_evaluated():
    found = check("v=spf1 exists:" + "%{d9r+-./_=}" * 400)
    assert (found.result, found.reason) == ("permerror", "the record has more than 4096 octets")


def test_a_huge_text_that_is_no_record_does_not_matter():
    zone = {"example.com": [{"TXT": "x" * 9000}, {"TXT": "v=spf1 +all"}]}
    ip = ipaddress.ip_address("2001:db8::1")
    assert check_sender(ip, "a@example.com", "mx.example", ZoneQuestions(zone)).result == "pass"


@given(st.text(), st.text(), st.text())
def test_no_record_sender_or_helo_raises(record, sender, helo):
    zone = {"example.com": [{"TXT": f"v=spf1 {record}".encode().decode("latin-1")}]}
    ip = ipaddress.ip_address("192.0.2.1")
    questions = ZoneQuestions(zone)
    assert check_sender(ip, f"{sender}@example.com", helo, questions).domain == "example.com"
    check_sender(ip, sender, helo, questions)
