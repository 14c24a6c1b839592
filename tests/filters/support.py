"""What the tests of several stock filters do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from greenfilter.testing import FakeSmtpd

if TYPE_CHECKING:
    import pytest

    from greenfilter.testing import Reply, Session

MESSAGE = b"Subject: hello\n\nhello\n"


def begin(
    smtpd: FakeSmtpd,
    src: str = "192.0.2.10:4711",
    sender: str = "alice@example.net",
    *,
    user: str | None = None,
    helo: str = "client.example.net",
    rdns: str | None = None,
) -> Session:
    """Connect a client and send MAIL, which is to be accepted."""
    session = smtpd.connect(src=src, rdns=rdns)
    session.ehlo(helo)
    if user is not None:
        assert session.starttls().ok
        session.ehlo(helo)
        assert session.auth(user, "secret").ok
    assert session.mail_from(sender).ok
    return session


def try_once(
    smtpd: FakeSmtpd, src: str = "192.0.2.10:4711", sender: str = "alice@example.net",
    recipient: str = "bob@example.org", **more: str,
) -> Reply:  # fmt: skip
    """Return what a client gets for RCPT, and quit."""
    session = begin(smtpd, src, sender, **more)
    reply = session.rcpt_to(recipient)
    session.quit()
    return reply


def deliver(
    smtpd: FakeSmtpd, src: str = "192.0.2.10:4711", sender: str = "alice@example.net",
    recipients: str = "bob@example.org", message: bytes = MESSAGE, **more: str,
) -> Reply:  # fmt: skip
    """Send a whole message; return the last reply, also that of a refused recipient."""
    session = begin(smtpd, src, sender, **more)
    for recipient in recipients.split():
        reply = session.rcpt_to(recipient)
    if reply.ok:
        reply = session.data(message)
    session.quit()
    return reply


def lines(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """Return the log lines of a filter's decisions, and forget them."""
    prefix = f"{name}: "
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return [text.removeprefix(prefix) for text in found if text.startswith(prefix)]


def log_all(caplog: pytest.LogCaptureFixture) -> None:
    """Keep log records of info level too."""
    caplog.set_level(logging.INFO, "greenfilter")
