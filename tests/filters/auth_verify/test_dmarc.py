"""DMARC, by the suite's cases and some of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenfilter.filters._auth_verify.dmarc import Dmarc, Evaluation, Identifier
from greenfilter.filters._auth_verify.domains import SuffixList
from greenfilter.filters._auth_verify.policy import parse_record

from .questions import TextQuestions

SUITE = Path(__file__).parents[2] / "data/suites/dmarc-cases.json"
CASES: list[dict[str, Any]] = json.loads(SUITE.read_text())


def identifiers(case: dict[str, Any]) -> list[Identifier]:
    found = [Identifier("dkim", each["domain"], each["result"]) for each in case["dkim"]]
    if case["spf"]["domain"] is not None:
        found.append(Identifier("spf", case["spf"]["domain"], case["spf"]["result"]))
    return found


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_case_of_the_suite(case):
    questions = TextQuestions(case["zone"])
    # The names of a whole walk may be asked, also if the names existence is asked of comes in.
    evaluation = Evaluation([each.replace("\r\n", "") for each in case["from"]], lambda: questions)
    found = evaluation.conclude(identifiers(case))
    expected = case["expect"]
    if found.result in expected.get("also_allowed", ()):
        return
    assert found.result == expected["result"]
    assert found.policy == expected["policy"]
    assert found.record_domain == expected["record_domain"]
    if expected["author_domain"] is None:
        assert evaluation.authors == []
    else:
        assert evaluation.authors == [expected["author_domain"]]
    if None not in (expected["organizational_domain"], found.organizational_domain):
        assert found.organizational_domain == expected["organizational_domain"]
    for method, aligned in expected["aligned"].items():
        own = found.aligned_dkim if method == "dkim" else found.aligned_spf
        if None not in (own, aligned):
            assert own == aligned
    records = [name for name in questions.asked if name.startswith("_dmarc.")]
    if expected["total_queries_at_most"] is not None:
        assert len(records) <= expected["total_queries_at_most"]
    if expected["author_walk"] is not None and not identifiers(case):
        assert set(records) <= set(expected["author_walk"])


RECORD = {"_dmarc.example.com": ["v=DMARC1; p=reject"]}


def evaluate(
    zone: dict[str, Any],
    *found: Identifier,
    froms: tuple[str, ...] = ("a@example.com",),
    suffixes: SuffixList | None = None,
) -> Dmarc:
    return Evaluation(list(froms), lambda: TextQuestions(zone), suffixes).conclude(found)


@pytest.mark.parametrize("method", ["dkim", "spf"])
def test_what_could_not_be_checked_might_have_passed(method):
    found = evaluate(RECORD, Identifier(method, "example.com", "temperror"))
    assert (found.result, found.policy) == ("temperror", None)
    found = evaluate(RECORD, Identifier(method, "example.net", "temperror"))
    assert (found.result, found.policy) == ("fail", "reject")


def test_a_stranger_below_the_same_top_domain_has_no_dns_of_his_asked():
    zone = {**RECORD, "_dmarc.evil.com": "SERVFAIL", "_dmarc.com": []}
    questions = TextQuestions(zone)
    found = Evaluation(["a@example.com"], lambda: questions).conclude(
        [Identifier("dkim", "evil.com", "pass")]
    )
    assert found.result == "fail"
    assert "_dmarc.evil.com" not in questions.asked


def test_names_that_are_none_are_no_identifiers():
    assert evaluate(RECORD, Identifier("dkim", "a..b", "pass")).result == "fail"


@pytest.mark.parametrize(
    ("froms", "result", "policy"),
    [
        (("a@example.com", "b@soft.example"), "fail", "reject"),
        (("b@soft.example", "a@example.com"), "fail", "reject"),
        (("b@soft.example, c@none.example",), "fail", "quarantine"),
        (("c@none.example, d@free.example",), "fail", "none"),
        (("a@example.com, x",), "fail", "reject"),
        (("a@d..example, A <a@example.com>",), "fail", "reject"),
        (("a@example.com" + "".join(f", a@d{number}.example" for number in range(9)),),)
        + (
            "fail",
            "reject",
        ),
        (("d@free.example, e@also-free.example",), "permerror", None),
        (("d@free.example, f@away.example",), "temperror", None),
        ((", ".join(f"a@d{number}.example" for number in range(9)),), "permerror", None),
    ],
)
def test_of_several_authors_the_strictest_policy_holds(froms, result, policy):
    zone = {
        **RECORD,
        "_dmarc.soft.example": ["v=DMARC1; p=quarantine"],
        "_dmarc.none.example": ["v=DMARC1; p=none"],
        "_dmarc.away.example": "TIMEOUT",
    }
    found = evaluate(zone, froms=froms)
    assert (found.result, found.policy) == (result, policy)


def test_an_author_beside_another_who_has_sent_the_mail_is_not_passed():
    zone = {**RECORD, "_dmarc.soft.example": ["v=DMARC1; p=quarantine"]}
    both = "a@example.com, b@soft.example"
    found = evaluate(zone, Identifier("dkim", "example.com", "pass"), froms=(both,))
    assert (found.result, found.policy) == ("fail", "quarantine")


def test_the_suffix_list_decides_instead_of_records():
    suffixes = SuffixList(["com", "co.uk"])
    zone = {
        "_dmarc.shop.co.uk": ["v=DMARC1; p=reject; sp=quarantine"],
        "_dmarc.co.uk": ["v=DMARC1; p=none; psd=y"],
        "a.shop.co.uk": [],
    }
    froms = ("x@a.shop.co.uk",)
    found = evaluate(zone, froms=froms, suffixes=suffixes)
    assert (found.result, found.policy, found.record_domain) == (
        "fail",
        "quarantine",
        "shop.co.uk",
    )
    sibling = Identifier("spf", "b.shop.co.uk", "pass")
    assert evaluate(zone, sibling, froms=froms, suffixes=suffixes).result == "pass"
    stranger = Identifier("spf", "other.co.uk", "pass")
    assert evaluate(zone, stranger, froms=froms, suffixes=suffixes).result == "fail"


@given(st.text(alphabet="vpsdt=DMARC1; rejctnouay\t", max_size=60), st.text())
def test_no_record_raises(text, more):
    parse_record(text)
    record = parse_record(f"v=DMARC1;{text};{more}")
    assert record is not None
    assert record.p in ("none", "quarantine", "reject")
