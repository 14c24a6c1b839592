"""DKIM, by the suite's messages and some of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from greenfilter.filters._auth_verify.dkim import DkimResult, find_signatures

from .bodies import hashes, split
from .questions import TextQuestions

SUITE = Path(__file__).parents[2] / "data/suites/dkim-verify"
EXPECTED: dict[str, Any] = json.loads((SUITE / "expected.json").read_text())
KEYS: dict[str, str] = json.loads((SUITE / "keys.json").read_text())


def verify(message: bytes, now: float, keys: dict[str, str] = KEYS) -> list[DkimResult]:
    fields, lines = split(message)
    signatures = find_signatures(fields, now)
    bodies = hashes(lines, [each.body for each in signatures])
    questions = TextQuestions(keys)
    return [each.verify(fields, bodies, questions) for each in signatures]


@pytest.mark.parametrize(
    "case", EXPECTED["messages"], ids=[each["file"] for each in EXPECTED["messages"]]
)
def test_a_message_of_the_suite(case):
    results = verify((SUITE / case["file"]).read_bytes(), EXPECTED["now"])
    assert len(results) == len(case["signatures"])
    for result, expected in zip(results, case["signatures"], strict=True):
        assert result.result in (expected["result"], *expected.get("also_allowed", ()))
        if expected["result"] != "pass" and "pass" not in expected.get("also_allowed", ()):
            assert result.reason
