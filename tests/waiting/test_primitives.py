"""What waits in a greenlet of the loop, natively in every other thread, and is woken from both."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.waiting import names

CASES = names.all_cases()


@pytest.fixture(scope="module")
def results():
    done = subprocess.run(
        [sys.executable, "-m", "tests.waiting.primitives"],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_each_primitive_wakes_its_waiter_in_all_directions(results, case):
    assert results[case] is None, results[case]


def test_every_case_was_tried(results):
    assert sorted(results) == sorted(CASES)
