"""The short log of deliveries does what it shows."""

from __future__ import annotations

import json
from pathlib import Path

from greenfilter.testing import FakeSmtpd
from tests.filters.support import begin, deliver

from .conftest import load_example


def test_a_message_is_logged_when_it_comes_in_and_when_it_is_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "mail.json"
    app = load_example("delivery_log", str(path)).app
    with FakeSmtpd(app, subsystems=("smtp-in", "smtp-out")) as smtpd:
        session = begin(smtpd, sender="alice@example.net", user="alice")
        session.rcpt_to("bob@example.com")
        session.rcpt_to("nobody@example.com", result="permfail")
        session.data(b"Subject: hello\n\nhello\n")
        message_id = session.delivered[0].message_id
        smtpd.connect_out().tx("alice@example.net", "bob@example.com", message_id=message_id)
        smtpd.settle()
    accepted, delivered = map(json.loads, path.read_text().splitlines())
    assert accepted["time"] <= delivered["time"]
    common = {
        "message_id": message_id,
        "mail_from": "alice@example.net",
        "rcpt_to": ["bob@example.com"],
    }
    del accepted["time"], delivered["time"]
    size = accepted.pop("size")
    assert size > len(b"Subject: hello\r\n\r\nhello\r\n")
    assert accepted == {"event": "accepted", "client": "192.0.2.10", "user": "alice", **common}
    assert delivered == {"event": "delivered", "server": "mx.example.com", **common}


def test_what_is_not_accepted_is_not_logged(tmp_path: Path) -> None:
    path = tmp_path / "mail.json"
    with FakeSmtpd(
        load_example("delivery_log", str(path)).app, subsystems=("smtp-in", "smtp-out")
    ) as smtpd:
        begin(smtpd).rset()
        out = smtpd.connect_out()
        out.tx("alice@example.net", "bob@example.com", refused="commit")
        deliver(smtpd, sender="")
        smtpd.settle()
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["mail_from"] == ""
