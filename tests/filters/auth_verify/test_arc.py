"""ARC, by the suite that its authors made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from greenfilter.filters._auth_verify.arc import ArcChain, ArcResult

from .bodies import hashes, split
from .questions import TextQuestions

SUITE = Path(__file__).parents[2] / "data/suites/arc/arc-draft-validation-tests.yml"
NOW = 1_790_000_000
CASES: list[Any] = [
    pytest.param(test, scenario["txt-records"], id=name)
    for scenario in yaml.safe_load_all(SUITE.read_text())
    for name, test in scenario["tests"].items()
]


def verify(message: bytes, keys: dict[str, str]) -> ArcResult:
    fields, lines = split(message)
    chain = ArcChain(fields, NOW)
    return chain.verify(hashes(lines, [chain.body]), TextQuestions(keys))


@pytest.mark.parametrize(("test", "keys"), CASES)
def test_a_case_of_the_suite(test, keys):
    message = "\r\n".join(test["message"].split("\n")).encode()
    # "" is for chains that somebody before us has found to be broken.
    expected = test["cv"].lower() or "fail"
    assert verify(message, {name: text for name, text in keys.items()}).result == expected
