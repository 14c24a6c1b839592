"""The short signing filter does what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from greenfilter.testing import FakeSmtpd
from tests.filters.dkim_sign.support import RSA, verified, write_key
from tests.filters.support import begin

from .conftest import load_example

MESSAGE = b"From: Alice <alice@example.org>\r\nSubject: hello\r\n\r\nHello\r\n"


def delivered(
    directory: Path, src: str, message: bytes = MESSAGE, user: str | None = None
) -> bytes:
    app = load_example("dkim_sign", "example.org", "r1", write_key(directory / "k.pem", RSA)).app
    with FakeSmtpd(app, received=False) as smtpd:
        session = begin(smtpd, src, user=user)
        session.rcpt_to("bob@example.net")
        return session.data(message).message or b""


@pytest.mark.parametrize(
    ("src", "user"),
    [("127.0.0.1:40", None), ("unix:/run/smtpd.sock", None), ("192.0.2.1:40", "alice")],
)
def test_what_our_users_send_is_signed(tmp_path: Path, src: str, user: str | None) -> None:
    assert verified(delivered(tmp_path, src, user=user)) == [True]


def test_what_smtpd_adds_after_it_does_not_break_the_signature(tmp_path: Path) -> None:
    signed = delivered(tmp_path, "127.0.0.1:40")
    assert verified(b"Date: Mon, 23 Nov 2026 09:00:00 +0000\r\n" + signed) == [True]


def test_what_strangers_send_and_what_is_from_others_is_not(tmp_path: Path) -> None:
    assert delivered(tmp_path, "192.0.2.1:40") == MESSAGE
    other = MESSAGE.replace(b"example.org", b"example.com")
    assert delivered(tmp_path, "127.0.0.1:40", other) == other
