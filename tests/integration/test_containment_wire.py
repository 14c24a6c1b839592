"""Lines that no smtpd would send: they are told and skipped, and what can be answered is."""

from __future__ import annotations

import sys

import gevent.event
import pytest

from greenfilter.testing import FakeSmtpd
from tests.support.filters import FILTERS

SID, TOKEN = b"00000000deadbeef", b"00000000cafebabe"
GARBAGE = {
    "nothing": b"\n\n\n",
    "noise": bytes(range(256)) * 40 + b"\n",
    "text": b"hello world\n",
    "bars": b"|" * 1000 + b"\n",
    "unknown kind": b"config|late|value\nconfig|ready\nregister|ready\nfilter-result|x|y|z\n",
    "supervisor's": b"greenfilter|hello|{}\ngreenfilter|replay|x\ngreenfilter|alive\n",
    "supervisor's short": b"greenfilter|\ngreenfilter\n",
    "short filter": b"filter\nfilter|\nfilter|0.7|1.0|smtp-in\nfilter|0.7|1.0|smtp-in|mail-from\n",
    "short report": b"report\nreport|0.7\nreport|0.7|1.0|smtp-in|link-connect\n",
    "version": b"report|9.9|1.0|smtp-in|link-greeting|%b|x\n" % SID,
    "versions": b"report|x|y|smtp-in|link-greeting|%b|x\nreport||||||||\n" % SID,
    "subsystem": b"filter|0.7|1.0|smtp-up|noop|%b|%b|\n" % (SID, TOKEN),
    "session": b"filter|0.7|1.0|smtp-in|noop|xyz|%b|\n" % TOKEN,
    "session of a report": b"report|0.7|1.0|smtp-in|tx-reset|..|x\n",
    "token": b"filter|0.7|1.0|smtp-in|noop|%b|xyz|\n" % SID,
    "unknown report": b"report|0.7|1.0|smtp-in|link-new|%b|x\n" % SID,
    "fields": b"report|0.7|1.0|smtp-in|link-connect|%b|only-one\n" % SID,
    "bad address": b"report|0.7|1.0|smtp-in|link-connect|%b|x|pass|[::::|5\n" % SID,
    "transaction": b"report|0.7|1.0|smtp-in|tx-rcpt|%b|deadbeef|ok|a@b\n" % SID,
    "reordered": b"".join(
        b"report|0.7|1.0|smtp-in|%b\n" % line.replace(b"SID", SID)
        for line in (
            b"link-disconnect|SID",
            b"tx-commit|SID|deadbeef|100",
            b"tx-begin|SID|deadbeef",
            b"link-connect|SID|rdns|pass|192.0.2.1:25|192.0.2.2:25",
            b"link-disconnect|SID",
            b"link-disconnect|SID",
        )
    ),
    "time": b"report|0.7|yesterday|smtp-in|link-greeting|%b|x\n" % SID,
    "carriage return": b"report|0.7|1.0|smtp-in|link-greeting|%b|x\r\n\r\n" % SID,
    "nul": b"report|0.7|1.0|smtp-in|link-greeting|%b|\0\0\n" % SID,
    "long": b"report|0.7|1.0|smtp-in|link-greeting|%b|" % SID + b"x" * 3_000_000 + b"\n",
    "not utf-8": b"report|0.7|1.0|smtp-in|link-identify|%b|EHLO|\xff\xfe\n" % SID,
}


@pytest.mark.parametrize("options", [(), ("--no-supervisor",)])
@pytest.mark.parametrize("version", ["0.6", "0.7"])
def test_what_makes_no_sense_is_skipped_and_the_next_message_is_served(options, version):
    command = [sys.executable, "-m", "greenfilter", "run", *options]
    target = [str(FILTERS / "edit.py"), "lines"]
    with FakeSmtpd([*command, *target], version=version) as smtpd:
        for name, garbage in GARBAGE.items():
            before = smtpd.connect()
            smtpd.send_raw(garbage)
            for session in (before, smtpd.connect()):
                assert session.ehlo("client.example.net").ok, name
                assert session.mail_from("alice@example.net").ok, name
                assert session.rcpt_to("bob@example.org").ok, name
                reply = session.data(b"Subject: next\n\n.dot\nlast\n")
                assert reply.ok, name
                assert reply.message.splitlines()[-2:] == [b".dot", b"last"], name
                session.quit()
        assert smtpd.errors == []


@pytest.mark.parametrize("options", [(), ("--no-supervisor",)])
def test_a_request_of_a_session_that_nobody_knows_is_answered(options):
    command = [sys.executable, "-m", "greenfilter", "run", *options]
    with FakeSmtpd([*command, str(FILTERS / "slow.py")]) as smtpd:
        session = smtpd.connect()
        session.ehlo("client.example.net")
        session.mail_from("alice@example.net")
        asked = [line for way, line in smtpd.trace if way == "<" and b"|mail-from|" in line]
        token = asked[0].split(b"|")[6].decode()
        link = smtpd._link
        link.begin("00000000deadbeef")
        link.oracle.ask("00000000deadbeef", "mail-from", token)
        waiter = gevent.event.AsyncResult()
        link._waiting["00000000deadbeef"] = waiter
        line = f"filter|0.7|1.0|smtp-in|mail-from|00000000deadbeef|{token}|a@example.net\n"
        smtpd.send_raw(line.encode())
        assert waiter.get(timeout=5).kind == "proceed"
