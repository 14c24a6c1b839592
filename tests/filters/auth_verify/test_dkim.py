"""DKIM, by the suite's messages and some of our own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenfilter.filters._auth_verify.dkim import DkimResult, find_signatures

from .bodies import hashes, split
from .questions import TextQuestions
from .signing import MAIL, private_pem, record, sign

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


OWN_KEYS = {"k1._domainkey.example.com": record()}
NOW = time.time()


def verify_own(mail: bytes, keys: dict[str, str] = OWN_KEYS) -> tuple[str, str]:
    """Give result and reason of the only signature."""
    [result] = verify(mail, NOW, keys)
    return result.result, result.reason


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(alphabet="ab \t.é", max_size=8), max_size=8),
    st.lists(st.text(alphabet="ab \t", max_size=8).map(lambda text: f"x{text}"), max_size=3),
    st.sampled_from([b"simple", b"relaxed"]),
    st.sampled_from([b"simple", b"relaxed"]),
    st.booleans(),
)
def test_what_dkimpy_signs_is_right(body, values, header_form, body_form, length):
    fields = "".join(f"X-Any:  {value}\r\n\t{value}\r\n" for value in values)
    mail = b"From: a@example.com\r\n" + fields.encode() + b"\r\n"
    mail += "".join(f"{line}\r\n" for line in body).encode()
    names = [b"from", *[b"x-any"] * len(values)]
    signature = dkim.sign(
        mail,
        b"k1",
        b"example.com",
        private_pem(),
        canonicalize=(header_form, body_form),
        include_headers=names,
        length=length,
    )
    assert verify_own(signature + mail) == ("pass", "")


def test_text_that_was_added_behind_the_signed_length_is_told():
    mail = dkim.sign(MAIL, b"k1", b"example.com", private_pem(), length=True) + MAIL
    assert verify_own(mail) == ("pass", "")
    added = mail.rstrip(b"\r\n") + b"\r\nmore\r\n"
    result, reason = verify_own(added)
    assert result == "pass"
    assert reason.startswith("only ")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 700), st.binary(max_size=3))
def test_a_changed_signature_never_raises_and_passes_only_if_nothing_signed_changed(at, data):
    mail = SIGNED[:at] + data + SIGNED[at + len(data) :]
    for result in verify(mail, NOW, OWN_KEYS):
        assert result.result in ("pass", "fail", "neutral", "permerror", "temperror")
        if result.result == "pass":
            assert dkim.verify(mail, dnsfunc=lambda name, timeout: record().encode())


SIGNED = sign()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "key syntax error"),
        ("v=DKIM1", "key syntax error: no p="),
        ("k=rsa; v=DKIM1; p=AA==", "unknown version of key"),
        ("v=DKIM2; p=AA==", "unknown version of key"),
        ("v=DKIM1; p=", "key revoked"),
        ("v=DKIM1; p=!!", "key is not base64"),
        ("v=DKIM1; k=ed25519; p=AAAA", "inappropriate key algorithm"),
        ("v=DKIM1; p=AA==; p=AA==", "key has p= twice"),
        ("v=spf1 -all", "unknown version of key"),
    ],
)
def test_a_key_that_cannot_be_used_says_why(text, reason):
    result = verify_own(SIGNED, {"k1._domainkey.example.com": text})
    assert result[0] == "permerror"
    assert result[1].startswith(reason)


def test_the_key_among_records_of_something_else_is_found():
    keys = {"k1._domainkey.example.com": ["v=spf1 -all", record()]}
    assert verify_own(SIGNED, keys) == ("pass", "")


def test_a_tail_of_blank_lines_and_white_space_takes_linear_time():
    body = (b" " * 900 + b"x" + b" \t" * 40 + b"\r\n") * 3000 + b"\r\n" * 300_000
    mail = sign()
    signature = mail[: -len(MAIL)]
    before = time.process_time()
    assert verify_own(signature + MAIL + body)[0] == "fail"
    assert time.process_time() - before < 10
