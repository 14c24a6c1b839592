"""DMARC, by the suite's cases and some of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from greenfilter.filters._auth_verify.dmarc import (
    Evaluation,
    Identifier,
)

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
    evaluation = Evaluation([each.replace("\r\n", "") for each in case["from"]], questions)
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
