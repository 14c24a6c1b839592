"""All checks of a message together, without a filter around them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from greenfilter.filters._auth_verify.check import Check, Envelope
from greenfilter.filters._auth_verify.results import claims, compose

from .questions import TextQuestions
from .signing import record, seal, sign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenfilter import Message

ENVELOPE = Envelope(ipaddress.ip_address("192.0.2.10"), "alice@example.com", "mx.example.com")
ZONE = {
    "example.com": ["v=spf1 ip4:192.0.2.10 -all"],
    "_dmarc.example.com": ["v=DMARC1; p=reject"],
    "k1._domainkey.example.com": [record()],
    "k1._domainkey.list.example.net": [record()],
}
SEALED = seal(b"Authentication-Results: list.example.net; dkim=pass\r\n" + sign())
HEAD = SEALED.index(b"\r\n\r\n")
FRAGMENTS = [b";", b"\r\n", b"=", b":", b'"', b"(", b"i=2;"]


class Mail:
    """As much of a message as is read."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.headers = raw[: raw.find(b"\r\n\r\n") + 2]

    def lines(self) -> Iterator[list[bytes]]:
        lines = self._raw.split(b"\r\n")
        for at in range(0, len(lines), 7):
            yield lines[at : at + 7]


def verdict_of(raw: bytes) -> Any:
    check = Check(cast("Message", Mail(raw)), arc=True)
    return check.conclude(ENVELOPE, lambda: TextQuestions(ZONE))


def test_a_message_in_order_passes_all_of_them():
    verdict = verdict_of(SEALED)
    words = [verdict.spf.result, verdict.dkim[0].result, verdict.dmarc.result, verdict.arc.result]
    assert words == ["pass"] * 4


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, HEAD),
    st.integers(0, 40),
    st.one_of(
        st.binary(max_size=6), st.sampled_from([b";", b"\r\n", b"=", b":", b'"', b"(", b"i=2;"])
    ),
)
def test_mail_that_is_mangled_anywhere_is_judged_and_told(at, cut, data):
    verdict = verdict_of(SEALED[:at] + data + SEALED[at + cut :])
    text = compose(
        "mx.example.org",
        verdict.spf,
        ENVELOPE.mail_from,
        verdict.dkim,
        verdict.dmarc,
        verdict.arc,
    )
    assert text.isascii()
    assert text.isprintable()
    assert claims(text, "mx.example.org")
