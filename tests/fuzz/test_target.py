"""What the fuzzer runs, on inputs that it stumbled over though greenfilter was right."""

import pytest

from tests.fuzz.target import Input, check
from tests.protocol.driver import request

LINE = request("data-line", b"one")
ODD = {
    "another first field": b"Filter" + request("data-line", b".").removeprefix(b"filter"),
    "another token": request("data-line", b".", token=b"f7eb83a2308afe88"),
    "another version": request("data-line", b".", version="0.4"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("choice", range(7))
def test_a_last_line_that_smtpd_would_not_write_is_no_finding(name, choice):
    wire = LINE + ODD[name] + request("commit") + LINE + request("data-line", b".")
    check(Input.of(wire, choice=choice))
