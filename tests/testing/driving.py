"""A filter to drive, and what tests do with it again and again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from greenfilter.testing import FakeSmtpd, Session

TAP = [sys.executable, "-I", "-S", str(Path(__file__).parent / "filters" / "tap.py")]
MESSAGE = b"Subject: hello\r\n\r\n.dot\r\nend\r\n"


def tap(**spec: object) -> list[str]:
    """The command of filters/tap.py."""
    return [*TAP, json.dumps(spec)]


def sent(smtpd: FakeSmtpd, kind: str) -> list[str]:
    """What smtpd wrote of a kind ("tx-mail", "rcpt-to" ...), without version, time and ids."""
    lines = []
    for direction, line in smtpd.trace:
        words = line.decode().split("|", 7 if line.startswith(b"filter|") else 6)
        if direction == "<" and len(words) > 4 and words[4] == kind:
            lines.append(words[-1])
    return lines


def kinds(smtpd: FakeSmtpd) -> list[str]:
    """The names of the reports and requests that smtpd wrote."""
    lines = [line.decode().split("|") for direction, line in smtpd.trace if direction == "<"]
    return [words[4] for words in lines if words[0] in ("report", "filter")]


def greeted(smtpd: FakeSmtpd) -> Session:
    session = smtpd.connect()
    assert session.ehlo("client.example.net").ok
    return session


def in_transaction(smtpd: FakeSmtpd) -> Session:
    session = greeted(smtpd)
    assert session.mail_from("alice@example.net").ok
    assert session.rcpt_to("bob@example.org").ok
    return session
