"""The filter rspamd in front of a real rspamd, which answers what a message asks for."""

from __future__ import annotations

import json
import shlex
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization

from greenfilter import Address, Status
from greenfilter.errors import UsageError
from greenfilter.filters import rspamd
from greenfilter.filters._rspamd.facts import facts_of
from greenfilter.filters._rspamd.http import Client
from greenfilter.filters._rspamd.verdict import read
from greenfilter.filters._servers import Deadline, Server
from greenfilter.testing import FakeSmtpd
from tests.filters.rspamd.support import delivered
from tests.filters.support import begin, deliver, lines, log_all
from tests.support import rspamd as rspamd_support
from tests.support.client import Client as SmtpClient
from tests.support.rspamd import BODY, RspamdServer, asking_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.sink import Sink
    from tests.support.smtpd import Smtpd

HEADERS = ["X-A: 1", "x-a: 2", "X-A: 3", "Subject: hello"]
CONTENT = b"hello \xff\r\n.\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RspamdServer]:
    with rspamd_support.running(tmp_path_factory) as server:
        yield server


@pytest.fixture
def start(server: RspamdServer, caplog: pytest.LogCaptureFixture) -> Callable[..., FakeSmtpd]:
    log_all(caplog)

    def make(*options: str) -> FakeSmtpd:
        return FakeSmtpd(rspamd.build([f"--server=127.0.0.1:{server.port}", *options]))

    return make


# Actions


def test_a_message_that_rspamd_has_nothing_against_passes_unchanged(start, caplog):
    with start() as smtpd:
        assert deliver(smtpd, message=BODY).ok
        received, _, rest = smtpd.messages[0].data.partition(b"X-A: 1")
    assert received.startswith(b"Received: ")
    assert received.count(b"\r\n") == received.count(b"\r\n\t") + 1
    assert b"X-A: 1" + rest == BODY.replace(b"\n", b"\r\n")
    (line,) = lines(caplog, "rspamd")
    assert line.startswith('pass action="no action" score=0.00/2000.00 symbols=R_DKIM_NA message=')
    assert line.endswith("client=192.0.2.10 from=alice@example.net to=bob@example.org")


@pytest.mark.parametrize(
    ("options", "action", "code", "text"),
    [
        ([], "reject", 550, "5.7.1 Spam message rejected"),
        ([], "soft reject", 451, "4.7.1 Try again later"),
        ([], "greylist", 451, "4.7.1 Greylisted, try again later"),
        ([], "discard", 550, "5.7.1 Spam message rejected"),
        (["--quarantine=reject"], "quarantine", 550, "5.7.1 Spam message rejected"),
    ],
)
def test_actions_that_refuse(start, caplog, options, action, code, text):
    with start(*options) as smtpd:
        assert deliver(smtpd, message=asking_for(action=action)).rejected(code, text)
        said = asking_for(action=action, message="go  away,\r\n250 p\u00e4\u00e4")
        reply = deliver(smtpd, message=said)
        assert reply.rejected(code, f"{text[:6]}go away, 250 p?"), reply
    what = "reject" if code == 550 else "tempfail"
    for line in lines(caplog, "rspamd"):
        assert line.startswith(
            f"{what} action={action if ' ' not in action else json.dumps(action)} "
        )
        assert " symbols=TEST_RULE " in line


@pytest.mark.parametrize(
    ("options", "action", "expected"),
    [
        ([], "no action", ["Received", *HEADERS]),
        (["--greylist=pass"], "greylist", ["Received", *HEADERS]),
        ([], "add header", ["X-Spam: Yes", "Received", *HEADERS]),
        ([], "quarantine", ["X-Spam: Yes", "Received", *HEADERS]),
        (["--quarantine=pass"], "quarantine", ["Received", *HEADERS]),
        (["--discard=junk"], "discard", ["X-Spam: Yes", "Received", *HEADERS]),
        (["--discard=pass"], "discard", ["Received", *HEADERS]),
        ([], "rewrite subject", ["Received", *HEADERS[:3], "Subject: [SPAM] hello"]),
    ],
)
def test_actions_that_let_the_message_go_on(start, options, action, expected):
    with start(*options) as smtpd:
        assert deliver(smtpd, message=asking_for(action=action)).ok
        assert delivered(smtpd) == (expected, CONTENT)


def test_a_subject_that_is_no_ascii_is_rewritten_and_a_missing_one_is_made(start):
    with start() as smtpd:
        asked = asking_for(action="rewrite subject").partition(b"\n")[0]
        assert deliver(smtpd, message=asked + "\nSubject: gr\u00fcn\n\n".encode()).ok
        assert smtpd.messages[-1].as_email()["Subject"] == "[SPAM] gr\u00fcn"
        assert smtpd.messages[-1].data.isascii()
        assert deliver(smtpd, message=asked + b"\nX-Other: x\n\n").ok
        assert smtpd.messages[-1].as_email()["Subject"].startswith("[SPAM]")


@pytest.mark.parametrize(
    ("options", "milter", "ok"),
    [
        ([], {"reject": "quarantine"}, True),
        ([], {"reject": "discard"}, False),
        (["--discard=junk"], {"reject": "discard"}, True),
        (["--quarantine=reject"], {"reject": "quarantine"}, False),
    ],
)
def test_a_reject_can_be_turned_into_something_else(start, options, milter, ok):
    with start(*options) as smtpd:
        message = asking_for(action="reject", milter=milter)
        assert deliver(smtpd, message=message).ok is ok
        if ok:
            assert delivered(smtpd)[0][0] == "X-Spam: Yes"


def test_with_no_action_only_headers_are_acted_on(start):
    milter = {"no_action": True, "add_headers": {"X-New": "1"}}
    with start() as smtpd:
        assert deliver(smtpd, message=asking_for(action="reject", milter=milter)).ok
        assert delivered(smtpd)[0][1:] == [*HEADERS, "X-New: 1", "X-Rspamd-Action: reject"]


# Headers and body


@pytest.mark.parametrize(
    ("milter", "expected"),
    [
        ({"add_headers": {"X-New": "1"}}, ["Received", *HEADERS, "X-New: 1"]),
        ({"add_headers": {"X-New": ["1", "2"]}}, ["Received", *HEADERS, "X-New: 1", "X-New: 2"]),
        (
            {"add_headers": {"X-New": {"value": "1", "order": 0}}},
            ["X-New: 1", "Received", *HEADERS],
        ),
        (
            {"add_headers": {"X-New": [{"value": "1", "order": 1}, {"value": "2", "index": 1}]}},
            ["Received", "X-New: 2", "X-New: 1", *HEADERS],
        ),
        (
            {"add_headers": {"X-New": [{"value": "1", "order": -1}, {"value": "2", "order": -2}]}},
            ["Received", *HEADERS, "X-New: 2", "X-New: 1"],
        ),
        (
            {"add_headers": {"X-New": {"value": "1", "order": 99}}},
            ["Received", *HEADERS, "X-New: 1"],
        ),
        (
            {"add_headers": {"X-New": {"value": "1", "order": -99}}},
            ["X-New: 1", "Received", *HEADERS],
        ),
        ({"remove_headers": {"X-A": 0}}, ["Received", HEADERS[3]]),
        ({"remove_headers": {"x-A": 1}}, ["Received", *HEADERS[1:]]),
        ({"remove_headers": {"X-A": -1}}, ["Received", *HEADERS[:2], HEADERS[3]]),
        ({"remove_headers": {"X-A": [1, 2]}}, ["Received", *HEADERS[2:]]),
        ({"remove_headers": {"X-A": [1, -3, 9, -9]}}, ["Received", *HEADERS[1:]]),
        (
            {"remove_headers": {"X-A": 0}, "add_headers": {"X-A": "new"}},
            ["Received", HEADERS[3], "X-A: new"],
        ),
        (
            {"add_headers": {"X-New": "a\nb\r\n c\n\n\nX-Forged: yes"}},
            ["Received", *HEADERS, "X-New: a\tb c\tX-Forged: yes"],
        ),
        (
            {"add_headers": {"X-New": "gr\u00fcn"}},
            ["Received", *HEADERS, "X-New: =?utf-8?q?gr=C3=BCn?="],
        ),
    ],
)
def test_headers_are_added_and_removed_as_rspamd_says(start, milter, expected):
    with start() as smtpd:
        assert deliver(smtpd, message=asking_for(milter=milter)).ok
        assert delivered(smtpd) == (expected, CONTENT)


@pytest.mark.parametrize(
    ("spam_header", "expected"),
    [
        ("Very", ["X-Spam: Very"]),
        ({"X-Junk": "1"}, ["X-Junk: 1", "X-Spam: Yes"]),
    ],
)
def test_spam_is_marked_as_milter_headers_has_it(start, spam_header, expected):
    with start() as smtpd:
        message = asking_for(action="add header", milter={"spam_header": spam_header})
        assert deliver(smtpd, message=b"X-Spam: No\n" + message).ok
        assert delivered(smtpd)[0] == [*expected, "Received", *HEADERS]


def test_a_body_that_rspamd_rewrites_replaces_the_old_one(start):
    with start() as smtpd:
        assert deliver(smtpd, message=asking_for(body="new\r\n.\r\n..body\r\n")).ok
        assert delivered(smtpd) == (["Received", *HEADERS], b"new\r\n.\r\n..body\r\n")


def test_signatures_of_rspamd_verify(start, server):
    key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = b"v=DKIM1; p=" + b"".join(public.splitlines()[1:-1])
    for domains in (["example.org"], ["example.org", "example.net"]):
        with start() as smtpd:
            message = b"From: a@example.org\n" + asking_for(sign=domains)
            assert deliver(smtpd, message=message, user="alice").ok
            data = smtpd.messages[0].data
        names = [line.partition(":")[0] for line in delivered(smtpd)[0]]
        assert names[: 1 + len(domains)] == ["Received", *["DKIM-Signature"] * len(domains)]
        verifier = dkim.DKIM(data)
        for index, domain in enumerate(domains):
            assert verifier.verify(idx=index, dnsfunc=lambda name, timeout=5: record)
            assert verifier.domain == domain.encode()


@pytest.mark.parametrize(("policy", "code"), [("tempfail", 451), ("reject", 550), ("ignore", 250)])
def test_changes_of_the_envelope_come_too_late_and_the_log_says_so(start, caplog, policy, code):
    milter = {"change_from": "x@example.org", "add_rcpt": ["y@example.org"], "del_rcpt": ["z@z"]}
    with start(f"--envelope-changes={policy}") as smtpd:
        assert deliver(smtpd, message=asking_for(milter=milter)).code == code
    told = 'envelope="change_from=x@example.org; add_rcpt=y@example.org; del_rcpt=z@z"'
    assert told in lines(caplog, "rspamd")[0]


# What rspamd is told


def told(smtpd: FakeSmtpd) -> dict[str, Any]:
    """Give what rspamd was told of the last message."""
    facts: dict[str, Any] = json.loads(smtpd.messages[-1].as_email()["X-Told"])
    return facts


def test_rspamd_is_told_all_that_is_known(start):
    with start("--settings-id=inbound", "--mta-name=mx7.example.org") as smtpd:
        recipients = "bob@example.org carol@example.org"
        reply = deliver(
            smtpd, "[2001:db8::7]:999", recipients=recipients, user="alice", helo="h.example",
            message=asking_for(facts=True), rdns="mail.example.net",
        )  # fmt: skip
        assert reply.ok
        facts = told(smtpd)
        assert facts.pop("size") == int(facts.pop("Content-Length"))
        assert facts.pop("Queue-Id") == smtpd.messages[0].message_id
    assert facts.pop("recipients") == recipients.split()
    assert facts == {
        "IP": "2001:db8::7",
        "ip": "2001:db8::7",
        "Helo": "h.example",
        "Hostname": "mail.example.net",
        "User": "alice",
        "TLS-Version": "TLSv1.3",
        "TLS-Cipher": "TLS_AES_256_GCM_SHA384",
        "From": "<alice@example.net>",
        "sender": "alice@example.net",
        "Rcpt": "<bob@example.org>",
        "MTA-Name": "mx7.example.org",
        "MTA-Tag": "greenfilter",
        "Settings-ID": "inbound",
        "Flags": "milter,body_block",
    }


def test_what_is_not_known_is_left_out_and_the_socket_counts_as_this_host(start):
    with start() as smtpd:
        assert deliver(smtpd, "unix:/var/run/smtpd.sock", "", message=asking_for(facts=True)).ok
        facts = told(smtpd)
    assert facts["IP"] == "127.0.0.1"
    assert facts["From"] == "<>"
    assert facts["sender"] == ""
    assert {"User", "TLS-Version", "TLS-Cipher", "Settings-ID"}.isdisjoint(facts)


def test_an_envelope_and_a_user_that_are_no_ascii_or_hostile_reach_rspamd_harmless(server):
    session = SimpleNamespace(
        src=Address("192.0.2.1:25"),
        identity="gr\u00fcn\r\nIP: 127.0.0.1",
        rdns="mail.example.net",
        fcrdns=Status.PERMFAIL,
        username="j\udcf6rg\0\x7f",
        ciphers=None,
        greeting="mx.example.org",
    )
    tx = SimpleNamespace(
        message_id="12345678",
        mail_from="j\u00f6rg@gr\u00fcn.example",
        rcpt_to=["b\udce4r\r\n@example.org", '"a, b"@example.org', "x@-\u00e4..example"],
    )
    ctx: Any = SimpleNamespace(session=session, tx=tx)
    headers = facts_of(ctx, None, None)
    message = asking_for(facts=True)
    response = Client().post(
        Server("127.0.0.1", server.port), "/checkv2", headers, lambda: [message], len(message),
        Deadline(10.0),
    )  # fmt: skip
    (addition,) = read(response).additions
    facts = json.loads(addition.value)
    assert facts["Helo"] == "gr\u00fcn??IP: 127.0.0.1"
    assert facts["IP"] == "192.0.2.1"
    assert "Hostname" not in facts
    assert facts["User"].endswith("rg??")
    assert facts["sender"] == "j%C3%B6rg@xn--grn-ioa.example"
    assert facts["recipients"][:2] == ["b%E4r%0D%0A@example.org", "a, b@example.org"]


# What is not scanned


def test_our_own_clients_can_be_left_alone(start, caplog):
    message = asking_for(action="reject")
    with start("--skip-ours", "--local=203.0.113.0/24") as smtpd:
        assert deliver(smtpd, "203.0.113.7:1", message=message).ok
        assert deliver(smtpd, message=message, user="alice").ok
        assert deliver(smtpd, "127.0.0.1:1", message=message).ok
        assert deliver(smtpd, message=message).rejected(550)
    assert [line.split()[1] for line in lines(caplog, "rspamd")[:3]] == ["reason=ours"] * 3


@pytest.mark.parametrize(("policy", "code"), [("pass", 250), ("tempfail", 451), ("reject", 552)])
def test_what_is_too_big_is_for_an_option_to_decide(start, caplog, policy, code):
    with start("--max-size=1k", f"--oversize={policy}") as smtpd:
        message = asking_for(action="soft reject") + b"x" * 70 + b"\n" + b"y" * 1000 + b"\n"
        assert deliver(smtpd, message=message).code == code
    assert lines(caplog, "rspamd")[0].startswith(f"{policy} reason=oversize bytes=1")


def test_log_only_refuses_and_edits_nothing(start, caplog):
    milter = {"add_headers": {"X-New": "1"}}
    with start("--log-only") as smtpd:
        for action in ("reject", "add header", "rewrite subject"):
            assert deliver(smtpd, message=asking_for(action=action, milter=milter)).ok
            assert delivered(smtpd) == (["Received", *HEADERS], CONTENT)
    assert lines(caplog, "rspamd")[0].startswith("reject log-only=yes action=reject ")


# Options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--server", "unix:x"], "a socket is unix:/PATH"),
        (["--server", "http://x/"], "is not HOST:PORT"),
        (["--on-failure", "drop"], "invalid choice"),
        (["--timeout", "0"], "is out of range"),
        (["--max-size", "much"], "is not a size"),
        (["--settings-id"], "expected one argument"),
    ],
)
def test_options_that_are_wrong_are_told_in_one_line(options, text):
    with pytest.raises(UsageError) as error:
        rspamd.build(options)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_its_manual_has_lines_for_smtpd_conf_and_says_what_happens_without_rspamd(capsys):
    with pytest.raises(SystemExit):
        rspamd.build(["--help"])
    manual = capsys.readouterr().out
    assert 'listen on 0.0.0.0 filter "rspamd"' in manual
    assert "--on-failure says what" in manual


def test_under_the_real_smtpd(server, smtpd: Callable[..., Smtpd], sink: Sink):
    words = [sys.executable, "-m", "greenfilter", "run", "rspamd", "--"]
    command = shlex.join([*words, "--server", f"127.0.0.1:{server.port}"])
    running = smtpd({"rspamd": command}, sink=sink)
    tests = [
        ({"action": "reject", "message": "no"}, b"550 5.7.1 no"),
        ({"action": "soft reject"}, b"451 4.7.1 Try again later"),
        ({"action": "rewrite subject"}, b"250 "),
        ({"facts": True}, b"250 "),
    ]
    for test, code in tests:
        with SmtpClient(running.port) as client:
            client.greet("client.example.net")
            client.envelope("alice@example.net", "bob@example.org", "carol@example.org")
            reply = client.data(asking_for(**test).replace(b"\n", b"\r\n"))
            assert reply.encode().startswith(code)
    assert sink.by_subject("[SPAM] hello").body == CONTENT
    facts = json.loads(str(sink.by_subject("hello").headers["X-Told"]))
    assert facts["recipients"] == ["bob@example.org", "carol@example.org"]
    assert (facts["IP"], facts["Helo"]) == ("127.0.0.1", "client.example.net")
    assert facts["MTA-Name"] == "mx.example.org"
    running.wait_for_log(r"rspamd: reject action=reject .*symbols=TEST_RULE")


def test_messages_on_one_connection_are_judged_one_by_one(start):
    with start() as smtpd:
        session = begin(smtpd)
        for action, ok in (("reject", False), ("no action", True), ("soft reject", False)):
            assert session.rcpt_to("bob@example.org").ok
            assert session.data(asking_for(action=action)).ok is ok
            session.mail_from("alice@example.net")
