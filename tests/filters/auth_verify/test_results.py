"""Authentication-Results: which fields are taken for ours, and what ours says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from authres import AuthenticationResultsHeader
from hypothesis import given
from hypothesis import strategies as st

from greenfilter.filters._auth_verify.arc import ArcResult
from greenfilter.filters._auth_verify.dkim import DkimResult
from greenfilter.filters._auth_verify.dmarc import Dmarc
from greenfilter.filters._auth_verify.results import claims, compose
from greenfilter.filters._auth_verify.sender import SpfResult

SUITE = Path(__file__).parents[2] / "data/suites/auth-results-cases.json"
CASES: dict[str, Any] = json.loads(SUITE.read_text())
OURS = "mx.example.org"
PASSED = SpfResult("pass", "example.com")
NONE = Dmarc("none", author_domain="example.com")


@pytest.mark.parametrize("case", CASES["cases"], ids=[case["name"] for case in CASES["cases"]])
def test_a_case_of_the_suite(case):
    for field, expected in zip(case["fields"], case["remove"], strict=True):
        name, _, value = field.replace("\r\n", "").partition(":")
        if name.lower() == "authentication-results":
            assert claims(value, CASES["authserv_id"]) is expected


@pytest.mark.parametrize(
    "value",
    [
        "mx.example.org.; spf=pass",
        "(unclosed mx.example.org; spf=pass",
        '"mx.example.org; spf=pass',
        "(a (nested) one) mx.example.org (x) 1; none",
        "mx.example.org",
        " \tmx.example.org\t;",
        "other.example.net 99999999999999999999999999; none",
        "mx.example.org spf=pass",
        " " * 5000 + "mx.example.org; spf=pass",
        "(" + "x" * 5000 + ") mx.example.org; spf=pass",
        " " * 4090 + "mx.example.org; spf=pass",
    ],
)
def test_what_could_be_taken_for_ours_is_removed(value):
    assert claims(value, OURS)


@pytest.mark.parametrize(
    "value", ["", ";", "(", "()", '"', "=", "other.example.net 1 ; none", "1; none", "\udcff; none"]
)
def test_what_is_not_ours_stays_however_malformed(value):
    assert not claims(value, OURS)


def test_an_identifier_in_unicode_is_the_one_in_a_labels():
    assert claims("mx.bücher.example; none", "mx.xn--bcher-kva.example")


def test_hostile_values_take_no_longer_than_linear_time():
    for unit in ("(", "((", '"\\', "( ", " (a)", "\\", "(\\"):
        claims(unit * 200_000, OURS)


def test_ours_is_one_that_others_can_read():
    text = compose(
        OURS,
        PASSED,
        "alice@example.com",
        [
            DkimResult("pass", "", "example.com", "k1", "rsa-sha256", "AbCdEfGhIjKl"),
            DkimResult("fail", "body hash did not verify", "example.net", "k2", "rsa-sha256", "ZZ"),
        ],
        Dmarc("pass", policy="reject", author_domain="example.com"),
        ArcResult("pass", "", "list.example.net", "a1", 2),
    )
    assert text == (
        "mx.example.org; spf=pass smtp.mailfrom=alice@example.com;"
        " dkim=pass header.d=example.com header.s=k1 header.a=rsa-sha256 header.b=AbCdEfGh;"
        ' dkim=fail reason="body hash did not verify" header.d=example.net header.s=k2'
        " header.a=rsa-sha256 header.b=ZZ;"
        " dmarc=pass header.from=example.com policy.dmarc=reject;"
        " arc=pass header.d=list.example.net header.s=a1 header.i=2"
    )
    parsed = AuthenticationResultsHeader.parse(f"Authentication-Results: {text}")
    assert [each.result for each in parsed.results] == ["pass", "pass", "fail", "pass", "pass"]


@pytest.mark.parametrize(
    "hostile",
    ["a\r\nX: y", 'a"; dmarc=pass header.from=bank.example; x="', "a b", "a;b", "a(b", "é", "a\0"],
)
def test_what_strangers_write_cannot_break_out(hostile):
    text = compose(
        OURS,
        SpfResult("permerror", "example.com", reason=hostile),
        f'"{hostile}"@example.com',
        [DkimResult("permerror", hostile, hostile, hostile, hostile, hostile)],
        Dmarc("permerror", hostile, author_domain=None),
        ArcResult("fail", hostile, hostile, hostile),
    )
    assert text.isascii()
    assert text.isprintable()
    parsed = AuthenticationResultsHeader.parse(f"Authentication-Results: {text}")
    results = [(each.method, each.result) for each in parsed.results]
    assert results == [
        ("spf", "permerror"), ("dkim", "permerror"), ("dmarc", "permerror"), ("arc", "fail"),
    ]  # fmt: skip


def test_a_local_part_that_needs_quotes_is_left_out():
    text = compose(OURS, PASSED, '"a b"@example.com', [], NONE, None)
    assert text == (
        "mx.example.org; spf=pass smtp.mailfrom=example.com; dkim=none;"
        " dmarc=none header.from=example.com"
    )


def test_the_null_sender_has_its_helo_name_told():
    spf = SpfResult("fail", "mx.example.com", "helo")
    assert "spf=fail smtp.helo=mx.example.com;" in compose(OURS, spf, "", [], NONE, None)


@given(st.text(alphabet='()";\\= \t1a.', max_size=30))
def test_whatever_stands_before_it_a_claim_in_order_is_found_or_closed(prefix):
    """No prefix raises; and one that a reader would skip does not hide our name."""
    claims(prefix, OURS)
    comment = "".join(each for each in prefix if each not in "()\\")
    assert claims(f"({comment}) {OURS}; dmarc=pass", OURS)
