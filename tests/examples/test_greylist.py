"""The short greylist does what it shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from greenfilter.testing import FakeSmtpd
from tests.filters.support import try_once

from .conftest import load_example


@pytest.fixture
def smtpd() -> Iterator[FakeSmtpd]:
    with FakeSmtpd(load_example("greylist").app) as smtpd:
        yield smtpd


def test_a_client_is_let_in_when_it_has_waited(smtpd: FakeSmtpd) -> None:
    assert try_once(smtpd).lines == ("451 4.7.1 Try again in 300 seconds",)
    smtpd.clock.advance(299)
    assert try_once(smtpd).lines == ("451 4.7.1 Try again in 1 seconds",)
    smtpd.clock.advance(1)
    assert try_once(smtpd).ok
    assert try_once(smtpd, recipient="BOB@example.org").ok


def test_another_client_sender_or_recipient_has_to_wait_by_itself(smtpd: FakeSmtpd) -> None:
    try_once(smtpd)
    smtpd.clock.advance(300)
    assert try_once(smtpd, src="192.0.2.11:4711").code == 451
    assert try_once(smtpd, sender="carol@example.net").code == 451
    assert try_once(smtpd, recipient="dave@example.org").code == 451
    assert try_once(smtpd, sender="").code == 451


def test_our_own_users_and_programs_need_not_wait(smtpd: FakeSmtpd) -> None:
    assert try_once(smtpd, user="alice").ok
    assert try_once(smtpd, src="unix:/run/smtpd.sock").ok
