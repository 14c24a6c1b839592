"""Addresses in fields, and whose they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenfilter.filters._submission_guard.addresses import Owned, display_name, in_field, normal


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("alice@example.org", ["alice@example.org"]),
        ("Alice <Alice@Example.ORG.>", ["alice@example.org"]),
        ('"boss@example.org" <alice@example.org>', ["alice@example.org"]),
        ("boss@example.org <alice@example.org>", ["boss@example.org", "alice@example.org"]),
        ("alice@example.org (boss@example.org)", ["alice@example.org"]),
        ("alice@example.org, Bob <bob@example.org>", ["alice@example.org", "bob@example.org"]),
        ("us: alice@example.org, bob@example.org;", ["alice@example.org", "bob@example.org"]),
        ("undisclosed: ;", []),
        # The name of a group is shown as a display name is.
        ("boss@example.org:;", ["boss@example.org"]),
        ("boss@example.org: alice@example.org;", ["boss@example.org", "alice@example.org"]),
        ("boss@example.org:<alice@example.org>", ["boss@example.org", "alice@example.org"]),
        ("", []),
        (" , ", []),
        ('"a b"@example.org', ["a b@example.org"]),
        ('"a\\"b"@example.org', ['a"b@example.org']),
        ('"<boss@example.org>" <alice@example.org>', ["alice@example.org"]),
        ("alice@B\u00fccher.example", ["alice@xn--bcher-kva.example"]),
        ("=?utf-8?q?boss?= <alice@example.org>", ["alice@example.org"]),
        # What an encoded word says is shown as well.
        *(
            (f"{name} <alice@example.org>", ["boss@example.org", "alice@example.org"])
            for name in (
                "=?utf-8?q?boss=40example.org?=",
                "=?utf-8?b?Ym9zc0BleGFtcGxlLm9yZw==?=",
                "The =?us-ascii*en?Q?boss=40?=  =?us-ascii?q?example.org?= of all",
                "=?utf-8?q?boss=40example.org:?=",
                "=?utf-8?q?=3Cboss=40example.org=3E?=",
                "=?utf-8?q?=28boss=40example.org=2C=29?=",
            )
        ),
        ("=?utf-8?q?boss=40example.org?=: ;", ["boss@example.org"]),
        (
            "=?utf-8?q?boss=40example.org?=: alice@example.org;",
            ["boss@example.org", "alice@example.org"],
        ),
    ],
)
def test_addresses_of_a_field(value: str, found: list[str]) -> None:
    assert in_field(value) == found


@pytest.mark.parametrize(
    "value",
    [
        "alice",
        "<alice@example.org> <boss@example.org>",
        "<alice@example.org> boss@example.org",
        "<<alice@example.org>>",
        "alice@example.org>",
        "<alice@example.org",
        '"open <alice@example.org>',
        "(open <alice@example.org>",
        "alice@example.org boss@example.org",
        "alice@boss@example.org",
        "<@relay.example,@b.example:alice@example.org>",
        "<>",
        "alice@",
        "@example.org",
        "alice@\udcff.example",
    ],
)
def test_a_field_that_programs_may_read_in_several_ways_is_not_read(value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        in_field(value)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=' \t\\"(),<>@:;ab.', max_size=30))
def test_any_text_is_read_or_refused(value: str) -> None:
    try:
        found = in_field(value)
    except ValueError:
        return
    assert all("@" in address for address in found)


@pytest.mark.parametrize(
    ("pattern", "address", "owned"),
    [
        ("alice@example.org", "alice@example.org", True),
        ("Alice@EXAMPLE.org", "alice@example.org", True),
        ("alice@example.org", "alice+news@example.org", True),
        ("alice@example.org", "alice+@example.org", True),
        ("alice@example.org", "+alice@example.org", False),
        ("alice@example.org", "alice2@example.org", False),
        ("alice@example.org", "alice@example.org.evil.example", False),
        ("@example.org", "anybody@example.org", True),
        ("@example.org", "anybody@sub.example.org", False),
        ("*@*.example.org", "anybody@sub.example.org", True),
        ("sales-*@example.org", "sales-eu@example.org", True),
        ("sales-*@example.org", "sales-eu@evil.example", False),
        ("a[b]?@example.org", "abc@example.org", False),
        ("a[b]?*@example.org", "a[b]?c@example.org", True),
        ("*", "anybody@anywhere.example", True),
        ("@B\u00fccher.example", "x@xn--bcher-kva.example", True),
        ("a*@b\u00fccher.example", "anna@xn--bcher-kva.example", True),
    ],
)
def test_whose_an_address_is(pattern: str, address: str, owned: bool) -> None:
    assert (normal(address) in Owned([pattern], "+")) is owned


def test_the_delimiter_is_an_option() -> None:
    assert "alice-news@example.org" in Owned(["alice@example.org"], "-")
    assert "alice+news@example.org" not in Owned(["alice@example.org"], "-")
    assert "alice+news@example.org" not in Owned(["alice@example.org"], "")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("Alice <alice@example.org>", "Alice"),
        ('"Doe, Alice" <alice@example.org>', '"Doe, Alice"'),
        ("alice@example.org", ""),
        ("<alice@example.org>", ""),
        ("boss@example.org <alice@example.org>", ""),
        ("=?utf-8?q?boss=40example.org?= <alice@example.org>", ""),
        ("=?utf-8?q?J=C3=BCrgen?= <j@example.org>", "=?utf-8?q?J=C3=BCrgen?="),
        ("Alice <a@example.org>, Bob <b@example.org>", ""),
    ],
)
def test_display_name(value: str, name: str) -> None:
    assert display_name(value) == name
