"""The short filter that edits headers does what it shows."""

from __future__ import annotations

import pytest

from greenfilter.testing import FakeSmtpd
from tests.filters.support import deliver

from .conftest import load_example


def delivered(message: bytes, src: str = "192.0.2.10:4711", user: str | None = None) -> bytes:
    with FakeSmtpd(load_example("mark_external", "[external]").app, received=False) as smtpd:
        return deliver(smtpd, src, message=message, user=user, rdns="mx.example.net").message or b""


def test_mail_from_outside_is_marked() -> None:
    assert delivered(b"Subject: lunch\nTo: bob@example.org\n\nAt noon?\n") == (
        b"Subject: [external] lunch\r\nTo: bob@example.org\r\n"
        b"X-External: from mx.example.net (192.0.2.10)\r\n\r\nAt noon?\r\n"
    )


def test_a_subject_in_any_language_is_read_and_marked_once() -> None:
    once = delivered(b"Subject: =?utf-8?q?caf=C3=A9?=\n\nhello\n")
    assert once.startswith(b"Subject: [external] =?utf-8?q?caf=C3=A9?=\r\n")
    again = delivered(once.replace(b"\r\n", b"\n"))
    assert again.count(b"[external]") == again.count(b"X-External") == 1


def test_a_message_without_a_subject_gets_one() -> None:
    assert b"Subject: [external]\r\n" in delivered(b"To: bob@example.org\n\nhello\n")


@pytest.mark.parametrize(
    ("src", "user"), [("192.0.2.10:4711", "alice"), ("unix:/run/smtpd.sock", None)]
)
def test_our_own_mail_is_not_marked(src: str, user: str | None) -> None:
    sent = b"X-External: from nowhere\nSubject: lunch\n\nAt noon?\n"
    assert delivered(sent, src, user) == b"Subject: lunch\r\n\r\nAt noon?\r\n"
