"""When a client has waited long enough."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from greenfilter.filters._greylist.rules import (
    Times,
    Verdict,
    domain_of,
    judge,
    network_of,
    steady,
)

NOW = 1_800_000_000.0
TIMES = Times(delay=300, window=7200, lifetime=864_000)


def tries(*offsets: float) -> list[Verdict]:
    """What one key gets that tries at these times."""
    entries: list[str | None] = [None]
    verdicts = []
    for offset in offsets:
        entries, verdict = judge(entries, TIMES, NOW + offset)
        verdicts.append(verdict)
    return verdicts


def test_the_first_try_has_to_wait():
    assert tries(0) == [Verdict(False, 300.0)]


def test_who_comes_again_too_early_waits_for_what_is_left_and_does_not_begin_anew():
    assert tries(0, 100, 299)[1:] == [Verdict(False, 200.0), Verdict(False, 1.0)]
    assert tries(0, 100, 300)[2] == Verdict(True)


def test_who_has_waited_is_let_in_at_once_from_then_on():
    assert tries(0, 300, 301, 800_000)[1:] == [
        Verdict(True),
        Verdict(True, known=True),
        Verdict(True, known=True),
    ]


def test_each_use_makes_an_entry_last_for_its_lifetime_again():
    assert tries(0, 300, 863_000, 1_726_000)[-1].known
    assert not tries(0, 300, 864_300)[-1].passed


def test_who_comes_after_the_window_begins_anew():
    assert tries(0, 7199)[1].passed
    assert tries(0, 7200, 7300)[1:] == [Verdict(False, 300.0), Verdict(False, 200.0)]


def test_without_a_delay_the_second_try_is_let_in_and_not_the_first():
    entries, verdict = judge([None], Times(delay=0), NOW)
    assert not verdict.passed
    assert judge(entries, Times(delay=0), NOW)[1].passed


def test_any_key_of_a_try_will_do_and_the_others_learn_it():
    waiting, _ = judge([None], TIMES, NOW)
    entries, verdict = judge([None, waiting[0]], TIMES, NOW + 400)
    assert verdict == Verdict(True)
    for entry in entries:
        assert judge([entry], TIMES, NOW + 401)[1].known


def test_a_new_key_takes_the_time_of_the_one_that_is_known():
    waiting, _ = judge([None], TIMES, NOW)
    entries, verdict = judge([waiting[0], None], TIMES, NOW + 100)
    assert verdict == Verdict(False, 200.0)
    assert judge([entries[1]], TIMES, NOW + 300)[1].passed


@pytest.mark.parametrize("entry", ["", "w", "x 12", "w twelve", "p nan", "p", "w 1e999999"])
def test_an_entry_that_makes_no_sense_is_none(entry: str):
    assert judge([entry], TIMES, NOW)[1] == Verdict(False, 300.0)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ],
)
def test_neighbours_count_as_one_network(address: str, network: str):
    assert network_of(ip_address(address), (24, 64)) == network


def test_the_size_of_a_network_can_be_chosen():
    assert network_of(ip_address("192.0.2.77"), (32, 64)) == "192.0.2.77/32"
    assert network_of(ip_address("2001:db8:1:2::3"), (24, 48)) == "2001:db8:1::/48"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alice@Example.NET", "alice@example.net"),
        ("list-bounces-17203@lists.example", "list-bounces-17204@lists.example"),
        ("list+bob=example.org@lists.example", "list+carol=example.org@lists.example"),
        ("prvs=1234abcdef=alice@example.net", "prvs=9876fedcba=alice@example.net"),
        (
            "SRS0=HHH=TT=example.com=alice@forward.example",
            "SRS0=ABC=XY=example.com=alice@forward.example",
        ),
        (
            "SRS1=HHH=forward.example==ABC=TT=example.com=alice@other.example",
            "SRS1=XYZ=forward.example==ABC=TT=example.com=alice@other.example",
        ),
        ("", ""),
    ],
)
def test_the_same_sender_is_known_again_whatever_is_in_its_address(one: str, other: str):
    assert steady(one) == steady(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("alice@example.net", "bob@example.net"),
        ("alice@example.net", "alice@example.com"),
        (
            "SRS0=HHH=TT=example.com=alice@forward.example",
            "SRS0=HHH=TT=example.com=bob@forward.example",
        ),
        ("prvs=1234abcdef=alice@example.net", "prvs=1234abcdef=bob@example.net"),
        ("+alice@example.net", "+bob@example.net"),
    ],
)
def test_different_senders_stay_apart(one: str, other: str):
    assert steady(one) != steady(other)


def test_the_domain_of_an_address():
    assert domain_of('"a@b"@Example.NET.') == "example.net"
    assert domain_of("") == ""
    assert domain_of("postmaster") == ""
