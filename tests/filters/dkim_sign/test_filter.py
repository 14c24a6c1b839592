"""dkim_sign end to end: under FakeSmtpd by ``greenfilter run``, and under the real smtpd."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from greenfilter.filters import dkim_sign
from greenfilter.testing import FakeSmtpd
from tests.support import smtpd as real
from tests.support.client import Client
from tests.support.sink import Sink

from .support import key_options, verified

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from greenfilter.testing import Session

STRANGER, LOCAL = "192.0.2.10:4000", "127.0.0.1:4000"
MESSAGE = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: hello\r\n\r\nHello\r\n"
)


def command(directory: Path, *options: str) -> list[str]:
    keys = key_options(directory)
    return [sys.executable, "-m", "greenfilter", "run", "dkim_sign", *keys, *options]


def deliver(session: Session, message: bytes) -> bytes:
    assert session.mail_from("alice@example.org").ok
    assert session.rcpt_to("bob@example.net").ok
    delivered = session.data(message).message
    assert delivered is not None
    return delivered


def greet(smtpd: FakeSmtpd, src: str) -> Session:
    session = smtpd.connect(src=src)
    assert session.ehlo("client.example.net").ok
    return session


@pytest.mark.parametrize("src", [LOCAL, "[::1]:4000", "unix:/var/run/smtpd.sock"])
def test_local_mail_is_signed_by_every_key_of_its_domain(tmp_path: Path, src: str) -> None:
    with FakeSmtpd(command(tmp_path)) as smtpd:
        assert verified(deliver(greet(smtpd, src), MESSAGE)) == [True, True]


def test_mail_of_authenticated_clients_is_signed(tmp_path: Path) -> None:
    with FakeSmtpd(command(tmp_path)) as smtpd:
        session = greet(smtpd, STRANGER)
        session.starttls()
        session.ehlo("client.example.net")
        assert session.auth("alice", "secret").ok
        assert verified(deliver(session, MESSAGE)) == [True, True]


def test_mail_of_strangers_passes_unsigned_and_untouched(tmp_path: Path) -> None:
    with FakeSmtpd(command(tmp_path), received=False) as smtpd:
        assert deliver(greet(smtpd, STRANGER), MESSAGE) == MESSAGE


@pytest.mark.parametrize("option", ["--sign-all", "--network=192.0.2.0/24"])
def test_mail_of_strangers_is_signed_by_option(tmp_path: Path, option: str) -> None:
    with FakeSmtpd(command(tmp_path, option)) as smtpd:
        assert verified(deliver(greet(smtpd, STRANGER), MESSAGE)) == [True, True]


def test_what_cannot_be_signed_passes_untouched_with_a_log_line(tmp_path: Path) -> None:
    nobody = b"Subject: from nobody\r\n\r\nHello\r\n"
    other = MESSAGE.replace(b"example.org", b"example.com")
    with FakeSmtpd(command(tmp_path), received=False) as smtpd:
        session = greet(smtpd, LOCAL)
        assert deliver(session, nobody) == nobody
        assert deliver(session, other) == other
        assert deliver(session, b"") == b""
    log = "\n".join(smtpd.log)
    assert log.count("is not signed: 0 From headers") == 2
    assert log.count("is not signed: no key for 'example.com'") == 1


def test_a_header_that_cannot_be_written_leaves_the_mail_unsigned(tmp_path: Path) -> None:
    # Completing the last address means to write the whole field, which has no place to fold.
    to = b",".join(b"user%03d@example.net" % number for number in range(200)) + b",bob"
    with FakeSmtpd(command(tmp_path)) as smtpd:
        message = MESSAGE.replace(b"bob@example.net", to)
        assert verified(deliver(greet(smtpd, LOCAL), message)) == []
    assert any("is not signed: To needs a line of" in line for line in smtpd.log)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"", b"x" * 999),
        (b"X-Seen: " + b"x" * 991 + b"\r\n", b"x"),
        (b"", b"one\rtwo" + b"x" * 999),
    ],
)
def test_lines_that_servers_would_cut_leave_the_mail_unsigned(
    tmp_path: Path, head: bytes, body: bytes
) -> None:
    with FakeSmtpd(command(tmp_path), received=False) as smtpd:
        message = head + MESSAGE + body + b"\r\n"
        delivered = deliver(greet(smtpd, LOCAL), message)
    assert verified(delivered) == []
    assert delivered.replace(b"\r", b"") == message.replace(b"one\rtwo", b"one\ntwo").replace(
        b"\r", b""
    )
    assert any("is not signed: " in line and "line of" in line for line in smtpd.log)


def test_a_bare_cr_is_mended_before_the_mail_is_signed(tmp_path: Path) -> None:
    with FakeSmtpd(command(tmp_path)) as smtpd:
        message = MESSAGE.replace(b"hello", b"a\rb") + b"one\rtwo\r\r\n"
        delivered = deliver(greet(smtpd, LOCAL), message)
    assert delivered.endswith(b"\r\none\r\ntwo\r\n\r\n")
    assert b"Subject: a b\r\n" in delivered
    assert verified(delivered) == [True, True]


def test_a_large_message_is_signed(tmp_path: Path) -> None:
    body = b"white  space\tand \t text of some length, so that it fills the lines \r\n" * 60_000
    with FakeSmtpd(command(tmp_path), timeout=50) as smtpd:
        assert verified(deliver(greet(smtpd, LOCAL), MESSAGE + body)) == [True, True]


def test_many_messages_at_once_are_signed(tmp_path: Path) -> None:
    with FakeSmtpd(command(tmp_path)) as smtpd:
        sessions = [smtpd.start(greet, smtpd, LOCAL) for _ in range(30)]
        messages = [
            smtpd.start(deliver, session.get(), MESSAGE.replace(b"Hello", b"Hello %d" % number))
            for number, session in enumerate(sessions)
        ]
        for number, message in enumerate(messages):
            delivered = message.get()
            assert delivered.endswith(b"\r\n\r\nHello %d\r\n" % number)
            assert verified(delivered) == [True, True]


def test_it_runs_in_memory_too(tmp_path: Path) -> None:
    app = dkim_sign.build(key_options(tmp_path))
    with FakeSmtpd(app) as smtpd:
        assert verified(deliver(greet(smtpd, LOCAL), MESSAGE)) == [True, True]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


HEAD = b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\n"
HOSTILE = {
    "plain": HEAD + b"Date: Mon, 23 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@x>\r\n\r\nHello\r\n",
    "without Date and Message-ID": HEAD + b"\r\nHello\r\n",
    "addresses without domain": b"From: alice\r\nTo: bob, carol (c, d) ,\r\n\t<dan>,, "
    b'"q\\"r" <eve>, (x)\r\nCc: frank,"g, h" <ida >, friends: jo;\r\n\r\nHello\r\n',
    "several To": HEAD + b"To: carol, dan\r\nTo:\r\nTo: eve (e)\r\n\r\nHello\r\n",
    "malformed addresses": HEAD
    + b"To: bob\\\r\nTo: b,)\r\nTo: b, >,(a\\b)\r\nCc: <bob> c>,<<d> \\\r\n"
    b'Cc: "open <e>\r\nCc: <f, (g\r\n\r\nHello\r\n',
    "Bcc": HEAD + b"Bcc: carol@example.net,\r\n dan\r\nbcc: eve\r\n\r\nHello\r\n",
    "folded headers": HEAD + b"References: <1@x>\r\n\t<2@x>  \r\n <3@x>\t\r\n\r\nHello\r\n",
    "repeated headers": HEAD + b"Reply-To: a@x\r\nReply-To: b@x\r\n\r\nHello\r\n",
    "8-bit": HEAD.replace(b"Alice", b"\xc3\x84lice \xff") + b"\r\ncaf\xc3\xa9 \xff\xfe\r\n",
    "no body": HEAD + b"\r\n",
    "no blank line": HEAD,
    "blank lines": HEAD + b"\r\n\r\n \r\n\r\nHello\r\n\r\n\t\r\n\r\n",
    "white space": HEAD + b"\r\n  a \t b  \r\n" + b" " * 500 + b"x" + b"\t" * 300 + b"\r\n",
    "dots": HEAD + b"\r\n.\r\n..\r\n.a\r\n|b|\r\n",
    "bare CR": HEAD + b"X-Seen: a\rb\r\n\r\nbare\rcr\r\nat the end\r\r\n",
}


def test_signatures_verify_after_the_real_smtpd_has_edited_and_relayed(
    tmp_path: Path, sink: Sink, require_smtpd: None
) -> None:
    line = " ".join(command(tmp_path, "--parent-domains"))
    with real.Smtpd({"dkim": line}, sink=sink) as smtpd:
        with Client(smtpd.port) as client:
            client.greet()
            for subject, message in HOSTILE.items():
                client.envelope("alice@example.org", "bob@example.net")
                reply = client.data(f"Subject: {subject}\r\n".encode() + message)
                assert reply.startswith("250 "), (subject, reply)
        for subject in HOSTILE:
            received = sink.by_subject(subject)
            assert verified(received.content) == [True, True], (subject, received.content)
        assert sink.by_subject("Bcc").headers["Bcc"] is None
        assert smtpd.alive()


def test_mail_from_the_real_local_socket_is_signed_and_of_strangers_is_not(
    tmp_path: Path, sink: Sink, require_smtpd: None
) -> None:
    line = " ".join(command(tmp_path))
    with real.Smtpd({"dkim": line}, sink=sink) as smtpd:
        smtpd.sendmail(
            b"From: alice@example.org\nTo: bob@example.net\nSubject: socket\n\nHello\n",
            "-f",
            "alice@example.org",
            "bob@example.net",
        )
        with Client(smtpd.proxy_port, proxy="192.0.2.1") as client:
            client.greet()
            client.envelope("alice@example.org", "bob@example.net")
            assert client.data(MESSAGE).startswith("250 ")
        assert verified(sink.by_subject("socket").content) == [True, True]
        assert verified(sink.by_subject("hello").content) == []
