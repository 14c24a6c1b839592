"""Lines that no smtpd would send: they are told and skipped, and what can be answered is."""

from __future__ import annotations

import shlex
import sys

import gevent.event
import pytest

from greenfilter.testing import FakeSmtpd
from tests.support import meddler
from tests.support.client import Client
from tests.support.filters import FILTERS, command
from tests.support.meddler import GARBAGE, SPOILS


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
def test_the_same_real_smtpd_serves_the_session_and_the_next(smtpd, sink, options):
    between = shlex.join([sys.executable, meddler.__file__])
    line = f"{between} {command('hostile', 'lines', options=options)}"
    server = smtpd({"hostile": line}, sink=sink)
    pids = server.pids()
    done = [f"add-{number}" for number in range(len(GARBAGE))]
    done += [f"spoil-{number}" for number in range(len(SPOILS))]
    for name in done:
        for identity in (name, "next"):
            with Client(server.port) as client:
                assert client.greet(f"{identity}.example.net").startswith("250 "), name
                for _ in range(2):
                    client.envelope("alice@example.net", "bob@example.org")
                    reply = client.data(f"Subject: {name}\r\n\r\n.dot\r\nlast\r\n".encode())
                    assert reply.startswith("250 "), (name, reply)
                assert client.quit().startswith("221 "), name
    messages = sink.wait_for(4 * len(done), timeout=30.0)
    assert {message.body for message in messages} == {b".dot\r\nlast\r\n"}
    assert len(messages) == 4 * len(done)
    assert server.alive()
    assert server.pids() == pids
    server.wait_for_log("hostile: .*warning: .*from smtpd: ")


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
