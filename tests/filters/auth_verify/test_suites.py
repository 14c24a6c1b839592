"""The suites' messages through the whole filter: what it removes, and what its header says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from greenfilter.filters import auth_verify
from greenfilter.testing import FakeSmtpd
from tests.filters.support import deliver
from tests.support.dns import DnsServer

from . import test_dkim as dkim_suite
from . import test_results as results_suite

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = {
    name: text if text == "SERVFAIL" else {"TXT": text} for name, text in dkim_suite.KEYS.items()
}
MESSAGES: list[dict[str, Any]] = dkim_suite.EXPECTED["messages"]
CASES: list[dict[str, Any]] = results_suite.CASES["cases"]


@pytest.fixture(scope="module")
def smtpd() -> Iterator[FakeSmtpd]:
    with DnsServer(KEYS) as dns_server:
        words = ["--resolver", f"127.0.0.1@{dns_server.port}", "--authserv-id", "mx.example.org"]
        with FakeSmtpd(auth_verify.build(words)) as server:
            yield server


def send(smtpd: FakeSmtpd, mail: bytes) -> tuple[str, bytes]:
    """Give the value of our header, and the rest of what was delivered."""
    assert deliver(smtpd, message=mail).ok
    delivered = smtpd.messages[-1].data
    head, received, rest = re.split(rb"\r\n(?![ \t])", delivered, maxsplit=2)
    assert received.startswith(b"Received: ")  # smtpd's own
    name, _, value = b" ".join(head.split()).decode().partition(": ")
    assert name == "Authentication-Results"
    return value, rest


@pytest.mark.parametrize(
    "case",
    dkim_suite.EXPECTED["messages"],
    ids=[m["file"] for m in dkim_suite.EXPECTED["messages"]],
)
def test_a_message_of_the_dkim_suite(smtpd: FakeSmtpd, case: dict[str, Any]) -> None:
    mail = (dkim_suite.SUITE / case["file"]).read_bytes()
    text, rest = send(smtpd, mail)
    assert rest == mail
    found = re.findall(r"; dkim=(\w+)", text)
    expected = case["signatures"] or [{"result": "none"}]
    assert len(found) == len(expected)
    for word, each in zip(found, expected, strict=True):
        assert word in (each["result"], *each.get("also_allowed", ()))


@pytest.mark.parametrize("case", CASES, ids=[each["name"] for each in CASES])
def test_a_case_of_the_authentication_results_suite(smtpd: FakeSmtpd, case: dict[str, Any]) -> None:
    fields = [field.encode() for field in case["fields"]]
    body = case.get("body", "hello\r\n").encode()
    _, rest = send(smtpd, b"\r\n".join([*fields, b"", body]))
    kept = [field for field, gone in zip(fields, case["remove"], strict=True) if not gone]
    assert rest == b"\r\n".join([*kept, b"", body])
