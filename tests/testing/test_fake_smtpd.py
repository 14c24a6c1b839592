"""FakeSmtpd against a good filter in a process of its own."""

from __future__ import annotations

import gc
import subprocess
import sys

import gevent
import pytest

from greenfilter.testing import FakeSmtpd

from .driving import MESSAGE, TAP, greeted, in_transaction, sent, tap


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7"])
def test_a_mail_goes_through_at_every_version(version):
    with FakeSmtpd(tap(swapped=version == "0.4"), version=version, received=False) as smtpd:
        session = smtpd.connect()
        assert session.reply.lines == ("220 mx.example.org ESMTP OpenSMTPD",)
        reply = session.ehlo("client.example.net")
        assert (reply.code, reply.ok) == (250, True)
        assert "STARTTLS" in reply.text.split("\n")
        assert session.mail_from("alice@example.net", "SIZE=10").ok
        assert session.rcpt_to("bob@example.org", "NOTIFY=NEVER").ok
        reply = session.data(MESSAGE)
        assert reply.message == MESSAGE
        assert session.quit().code == 221
        assert session.closed
    [message] = smtpd.messages
    assert (message.mail_from, message.rcpt_to) == ("alice@example.net", ("bob@example.org",))
    assert message.data == MESSAGE
    assert ("commit", "proceed") in session.decisions
    assert smtpd.log == ["registered"]
    assert smtpd.errors == []


@pytest.mark.parametrize(
    ("version", "tx_mail", "link_auth"),
    [
        ("0.5", "alice@example.net|ok", "alice|pass"),
        ("0.6", "ok|alice@example.net", "alice|pass"),
        ("0.7", "ok|alice@example.net", "pass|alice"),
    ],
)
def test_the_order_of_fields_follows_the_version(version, tx_mail, link_auth):
    with FakeSmtpd(TAP, version=version) as smtpd:
        session = greeted(smtpd)
        assert session.starttls().ok
        assert session.ehlo("client.example.net").ok
        assert session.auth("alice", "secret").code == 235
        session.mail_from("alice@example.net")
    assert [text.partition("|")[2] for text in sent(smtpd, "tx-mail")] == [tx_mail]
    assert sent(smtpd, "link-auth") == [link_auth]
    assert sent(smtpd, "auth") == ["PLAIN AGFsaWNlAHNlY3JldA=="]
    assert "AUTH PLAIN ********" in sent(smtpd, "protocol-client")


def test_a_wrong_password_is_smtpds_own_refusal():
    with FakeSmtpd(TAP) as smtpd:
        session = greeted(smtpd)
        session.starttls()
        session.ehlo("client.example.net")
        assert session.auth("two words\\", "x", ok=False).code == 535
        assert session.auth("alice", "secret").ok
    assert sent(smtpd, "link-auth") == ["fail|two\\040words\\\\", "pass|alice"]


def test_auth_login_takes_two_challenges():
    with FakeSmtpd(TAP) as smtpd:
        session = greeted(smtpd)
        session.starttls()
        session.ehlo("client.example.net")
        assert session.command("AUTH LOGIN").lines == ("334 VXNlcm5hbWU6",)
        assert session.command("YWxpY2U=").lines == ("334 UGFzc3dvcmQ6",)
        assert session.command("c2VjcmV0").code == 235
    assert sent(smtpd, "link-auth") == ["pass|alice"]


@pytest.mark.parametrize(("result", "code"), [("permfail", 550), ("tempfail", 451)])
def test_a_recipient_that_smtpd_refuses_is_reported_and_is_none(result, code):
    with FakeSmtpd(TAP) as smtpd:
        session = in_transaction(smtpd)
        assert session.rcpt_to("carol@example.org", result=result).code == code
        session.data(MESSAGE)
    assert smtpd.messages[0].rcpt_to == ("bob@example.org",)
    assert [text.split("|")[1] for text in sent(smtpd, "tx-rcpt")] == ["ok", result]


def test_only_what_is_registered_is_sent():
    register = ["report|smtp-in|tx-commit", "report|smtp-in|tx-commit", "filter|smtp-in|commit"]
    with FakeSmtpd(tap(register=register)) as smtpd:
        assert in_transaction(smtpd).data(MESSAGE).ok
    assert smtpd.registered == {
        ("report", "smtp-in", "tx-commit"),
        ("filter", "smtp-in", "commit"),
    }
    kinds = [
        line.split(b"|")[4] for where, line in smtpd.trace if where == "<" and b"|0.7|" in line
    ]
    assert kinds == [b"commit", b"tx-commit", b"tx-commit"]


def test_junk_outside_a_transaction_is_for_the_session_and_inside_for_the_message():
    with FakeSmtpd(tap(answers={"rcpt-to": ["junk"], "mail-from": ["proceed"] * 2})) as smtpd:
        session = in_transaction(smtpd)
        assert session.junk
        assert session.data(MESSAGE).message.startswith(b"X-Spam: Yes\r\nReceived: ")
        assert not session.junk
        session.mail_from("alice@example.net")
        session.rcpt_to("bob@example.org")
        assert not session.data(MESSAGE).message.startswith(b"X-Spam")
    assert [message.junk for message in smtpd.messages] == [True, False]
    with FakeSmtpd(tap(answers={"mail-from": ["junk"]})) as smtpd:
        session = in_transaction(smtpd)
        session.rset()
        assert session.junk


def test_rewritten_addresses_are_delivered_and_the_originals_reported():
    answers = {"mail-from": ["rewrite|<new@example.net> SIZE=1"], "rcpt-to": ["rewrite|<x@y.z>"]}
    with FakeSmtpd(tap(answers=answers)) as smtpd:
        in_transaction(smtpd).data(MESSAGE)
    assert smtpd.messages[0].mail_from == "new@example.net"
    assert smtpd.messages[0].rcpt_to == ("x@y.z",)
    assert [text.partition("|")[2] for text in sent(smtpd, "tx-rcpt")] == ["ok|bob@example.org"]
    assert "rcpt-to|rewrite|<x@y.z>" in sent(smtpd, "filter-response")


def test_a_rewritten_address_without_brackets_is_an_error_to_the_client():
    with FakeSmtpd(tap(answers={"mail-from": ["rewrite|new@example.net"]})) as smtpd:
        assert greeted(smtpd).mail_from("alice@example.net").code == 553


def test_reject_at_commit_delivers_nothing_and_repeats_tx_data():
    with FakeSmtpd(tap(answers={"commit": ["reject|550 no"]})) as smtpd:
        session = in_transaction(smtpd)
        reply = session.data(MESSAGE)
        assert (reply.code, reply.text, reply.message) == (550, "no", None)
        assert session.mail_from("again@example.net").ok
    assert smtpd.messages == []
    assert [text.split("|")[1] for text in sent(smtpd, "tx-data")] == ["ok", "permfail"]
    assert len(sent(smtpd, "tx-rollback")) == 1


def test_disconnect_closes_the_connection():
    with FakeSmtpd(tap(answers={"ehlo": ["disconnect|550 bye"]})) as smtpd:
        session = smtpd.connect()
        assert session.ehlo("client.example.net").lines == ("550 bye",)
        assert session.closed
        with pytest.raises(ConnectionError):
            session.noop()
    assert len(sent(smtpd, "link-disconnect")) == 1


def test_a_client_that_leaves_in_the_middle_of_data():
    with FakeSmtpd(TAP) as smtpd:
        session = in_transaction(smtpd)
        assert session.data_begin().code == 354
        session.data_lines([b"Subject: x", b""])
        session.disconnect()
        assert in_transaction(smtpd).data(MESSAGE).ok
    assert len(smtpd.messages) == 1
    kinds = [
        line.split(b"|")[4] for where, line in smtpd.trace if where == "<" and b"|0.7|" in line
    ]
    end = kinds.index(b"link-disconnect")
    assert kinds[end - 2 : end] == [b"tx-rollback", b"tx-reset"]


def test_a_session_that_times_out():
    with FakeSmtpd(TAP) as smtpd:
        session = in_transaction(smtpd)
        session.timeout()
        assert session.closed
    kinds = [
        line.split(b"|")[4] for where, line in smtpd.trace if where == "<" and b"|0.7|" in line
    ]
    assert kinds[-4:] == [b"timeout", b"tx-rollback", b"tx-reset", b"link-disconnect"]


def test_a_message_above_the_size_limit_is_refused_by_smtpd_after_the_filter():
    with FakeSmtpd(TAP, max_message_bytes=1000) as smtpd:
        session = in_transaction(smtpd)
        assert session.data(b"x" * 500 + b"\n" + b"y" * 600 + b"\n").code == 554
        assert session.decisions[-1] == ("commit", "proceed")
    assert smtpd.messages == []


def test_a_line_that_smtpd_does_not_read_cuts_the_client():
    with FakeSmtpd(TAP) as smtpd:
        session = in_transaction(smtpd)
        assert session.data(b"x" * 65_535).lines == ("500 5.0.0 Line too long",)
        assert session.closed
    assert [text.split("|")[1] for text in sent(smtpd, "tx-data")] == ["ok", "permfail"]


def test_long_lines_are_cut_by_an_old_server_and_pass_a_new_one():
    for version, size in (("0.6", 1997), ("0.7", 50_000)):
        with FakeSmtpd(TAP, version=version, received=False) as smtpd:
            reply = in_transaction(smtpd).data(b"x" * 50_000)
            assert reply.message == b"x" * size + b"\r\n"


def test_a_large_message_does_not_need_a_filter_that_reads_while_it_writes():
    body = b"".join(b"%065d\n" % number for number in range(20_000))
    with FakeSmtpd(TAP, received=False) as smtpd:
        assert in_transaction(smtpd).data(body).message == body.replace(b"\n", b"\r\n")


def test_a_filter_that_buffers_the_message_may_change_its_order():
    with FakeSmtpd(tap(data="reversed"), received=False) as smtpd:
        assert in_transaction(smtpd).data(b"a\n.b\nc\n").message == b"c\r\n.b\r\na\r\n"


def test_local_and_ipv6_clients():
    with FakeSmtpd(TAP) as smtpd:
        local = smtpd.connect(src="unix:/var/run/smtpd.sock")
        local.ehlo("localhost")
        v6 = smtpd.connect(src="[2001:db8::10]:4711", rdns="<unknown>", fcrdns="fail")
        v6.ehlo("[IPv6:2001:db8::10]")
    assert sent(smtpd, "connect") == ["mx.example.org|local", "<unknown>|[2001:db8::10]"]
    socket = "unix:/var/run/smtpd.sock"
    assert sent(smtpd, "link-connect") == [
        f"mx.example.org|pass|{socket}|{socket}",
        "<unknown>|fail|[2001:db8::10]:4711|192.0.2.25:25",
    ]


def test_sessions_in_greenlets_wait_for_each_their_own_answer():
    with FakeSmtpd(TAP) as smtpd:
        pending = [smtpd.start(in_transaction, smtpd) for _ in range(50)]
        sessions = [greenlet.get(timeout=10) for greenlet in pending]
        replies = [smtpd.start(session.data, b"%d\n" % i) for i, session in enumerate(sessions)]
        for number, greenlet in enumerate(replies):
            assert greenlet.get(timeout=10).message.endswith(b"\r\n%d\r\n" % number)
    assert len(smtpd.messages) == 50


def test_calls_for_one_session_from_several_greenlets_follow_each_other():
    with FakeSmtpd(TAP) as smtpd:
        session = greeted(smtpd)
        pending = [smtpd.start(session.noop) for _ in range(20)]
        assert [greenlet.get(timeout=10).code for greenlet in pending] == [250] * 20


SCRIPT = """
import sys
{first}
from greenfilter.testing import FakeSmtpd
with FakeSmtpd(sys.argv[1:]) as smtpd:
    session = smtpd.connect()
    session.ehlo("client.example.net")
    session.mail_from("alice@example.net")
    session.rcpt_to("bob@example.org")
    assert session.data(b"hello\\n").ok
    session.quit()
print(len(smtpd.messages), smtpd.log)
"""


@pytest.mark.parametrize("first", ["", "from gevent import monkey; monkey.patch_all()"])
def test_works_with_and_without_monkey_patching(first):
    script = SCRIPT.format(first=first)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *TAP],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1 ['registered']\n", "")


def running_greenlets() -> set[gevent.Greenlet]:
    return {g for g in gc.get_objects() if isinstance(g, gevent.Greenlet) and g.started}


def test_no_greenlet_is_left():
    before = running_greenlets()
    with FakeSmtpd(TAP) as smtpd:
        greeted(smtpd)
    assert running_greenlets() - before == set()
