"""Chains of small filters, and what tests do with them again and again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from greenfilter import Chain, Filter
from greenfilter.testing import FakeSmtpd

MESSAGE = b"Subject: hello\r\n\r\none\r\n.two\r\n"
TEMPFAIL = "451 4.3.0 Temporary failure, please try again later"


def asking(phase: str, function: Callable[..., Any], name: str = "asking", **options) -> Filter:
    """A filter with one filter handler, which is given ctx and the value."""
    app = Filter(name)
    if phase == "connect":
        app.filter.connect(**options)(lambda ctx, rdns, address: function(ctx, str(address)))
    elif phase in ("helo", "ehlo", "auth", "mail_from", "rcpt_to"):
        getattr(app.filter, phase)(**options)(lambda ctx, value: function(ctx, value))
    else:
        getattr(app.filter, phase)(**options)(lambda ctx: function(ctx, None))
    return app


def answering(phase: str, decision: Any, name: str = "answering", **options) -> Filter:
    """A filter that answers one phase with one decision."""
    return asking(phase, lambda ctx, value: decision, name, **options)


def chain(*apps: Filter) -> Chain:
    made = Chain("mx")
    for app in apps:
        made.add(app)
    return made


def greeted(smtpd: FakeSmtpd, **client):
    session = smtpd.connect(**client)
    assert session.ehlo("client.example.net").ok
    return session


def in_transaction(smtpd: FakeSmtpd, **client):
    session = greeted(smtpd, **client)
    assert session.mail_from("alice@example.net").ok
    assert session.rcpt_to("bob@example.org").ok
    return session


def answers(smtpd: FakeSmtpd, phase: str) -> list[str]:
    """What the requests of a phase were answered, in order."""
    tokens = {
        line.split(b"|")[6]
        for direction, line in smtpd.trace
        if direction == "<"
        and line.startswith(b"filter|")
        and line.split(b"|")[4] == phase.encode()
    }
    return [
        line.split(b"|", 3)[3].decode()
        for direction, line in smtpd.trace
        if direction == ">" and line.startswith(b"filter-result|") and line.split(b"|")[2] in tokens
    ]


def logged(caplog, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]
