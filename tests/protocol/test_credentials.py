"""Passwords are not recorded, all else is."""

import base64

import pytest

from greenfilter.protocol._credentials import (
    redact,
    redact_auth,
    redact_command,
    redact_reply,
    reveals,
)
from tests.testing.recordings import LOGS, TRANSCRIPTS

ASK = b"filter|0.7|1.5|smtp-in|auth|6a14acf1f252dd7b|cc4c3b0478ec7d43|"
SAID = b"report|0.7|1.5|smtp-in|protocol-client|6a14acf1f252dd7b|"
ALICE = b"PLAIN " + base64.b64encode(b"\0alice\0********")


def plain(*words):
    return b"PLAIN " + base64.b64encode(b"\0".join(words))


@pytest.mark.parametrize(
    ("parameter", "recorded"),
    [
        (plain(b"", b"alice", b"secret"), ALICE),
        (plain(b"admin", b"alice", b"secret"), plain(b"admin", b"alice", b"********")),
        (b"plain " + base64.b64encode(b"\0alice\0secret"), b"plain" + ALICE[5:]),
        (b"PLAIN\t" + base64.b64encode(b"\0alice\0secret"), ALICE),
        (b"PLAIN c2VjcmV0", b"PLAIN ********"),
        (b"PLAIN !!!secret", b"PLAIN ********"),
        (b"PLAIN AGFsaWNl AHNlY3JldA==", b"PLAIN ********"),
        (b"PLAIN", b"PLAIN"),
        (b"LOGIN", b"LOGIN"),
        (b"LOGIN YWxpY2U=", b"LOGIN YWxpY2U="),
        (b"LOGIN YWxpY2U= c2VjcmV0", b"LOGIN ********"),
        (b"LOGIN AGFsaWNlAHNlY3JldA==", b"LOGIN ********"),
        (b"XOAUTH2 dG9rZW4=", b"XOAUTH2 ********"),
        (b"AGFsaWNlAHNlY3JldA==", b"********"),
    ],
)
def test_the_password_of_a_request_becomes_stars_and_the_user_name_stays(parameter, recorded):
    assert redact_auth(parameter, keep_user=True) == recorded
    assert redact(ASK + parameter, keep_user=True) == ASK + recorded


@pytest.mark.parametrize(
    ("line", "recorded"),
    [
        (SAID + b"AUTH " + plain(b"", b"alice", b"secret"), SAID + b"AUTH " + ALICE),
        (SAID + b"auth  PLAIN c2VjcmV0", SAID + b"auth  PLAIN ********"),
        (SAID + b"c2VjcmV0", SAID + b"********"),
        (SAID + b"c2VjcmV0\r", SAID + b"********"),
        (SAID + b"AUTHSECRET", SAID + b"********"),
        (SAID + b"Auth\tPLAIN c2VjcmV0", SAID + b"Auth\tPLAIN ********"),
        (
            b"filter-result|6a14acf1f252dd7b|cc4c3b0478ec7d43|rewrite|PLAIN AGJvYgBwYXNz",
            b"filter-result|6a14acf1f252dd7b|cc4c3b0478ec7d43|rewrite|"
            + plain(b"", b"bob", b"********"),
        ),
        (
            b"report|0.7|1.5|smtp-in|filter-response|6a14acf1f252dd7b|auth|rewrite|PLAIN c2VjcmV0",
            b"report|0.7|1.5|smtp-in|filter-response|6a14acf1f252dd7b|auth|rewrite|PLAIN ********",
        ),
    ],
)
def test_passwords_elsewhere_become_stars(line, recorded):
    assert redact(line, keep_user=True) == recorded


@pytest.mark.parametrize(
    "line",
    [
        SAID + b"AUTH LOGIN YWxpY2U=",
        SAID + b"MAIL FROM:<alice@example.net>",
        SAID + b"QUIT",
        SAID + b"quit\r",
        SAID + b".",
        SAID + b"GET / HTTP/1.1",
        SAID + b"",
        b"a filter|auth|that prints",
        b"filter|0.7|1.5|smtp-in|data-line|6a14acf1f252dd7b|cc4c3b0478ec7d43|"
        + ASK
        + b"PLAIN cA==",
        b"filter-dataline|6a14acf1f252dd7b|cc4c3b0478ec7d43|" + SAID + b"c2VjcmV0",
        b"filter-result|6a14acf1f252dd7b|cc4c3b0478ec7d43|rewrite|<alice@example.net>",
    ],
)
def test_what_holds_no_password_stays_as_it_is(line):
    assert redact(line, keep_user=True) == line


def test_each_line_of_many_is_looked_at_alone():
    lines = [SAID + b"QUIT", SAID + b"c2VjcmV0", ASK + b"PLAIN", b"x", ASK + b"PLAIN c2VjcmV0"]
    assert redact(b"\n".join(lines)) == b"\n".join(redact(line) for line in lines)


def test_no_password_of_the_recorded_servers_is_left():
    secrets = [b"AHNlY3JldA", b"c2VjcmV0", b"wYXxzcw", b"YWxpY2U=\n", b"!!!notbase64"]
    seen = set()
    for log in LOGS:
        data = (TRANSCRIPTS / log).read_bytes().replace(b"\n< ", b"\n").replace(b"\n> ", b"\n")
        seen |= {secret for secret in secrets if secret in data}
        found = [secret for secret in secrets if secret in redact(data, keep_user=True)]
        assert not found, log
    assert seen == set(secrets)


PLAIN = base64.b64encode(b"\0alice\0hunter2").decode()
PASSWORD = base64.b64encode(b"hunter2").decode()


@pytest.mark.parametrize(
    "line",
    [
        f"AUTH PLAIN {PLAIN}",
        f"auth plain {PLAIN}",
        f"AUTH  PLAIN {PLAIN}",
        f"auth  plain  {PLAIN}  ",
        f"AUTH\tPLAIN\t{PLAIN}",
        f" AUTH PLAIN {PLAIN}",
        f"\tauth plain {PLAIN}",
        f"AUTH PLAIN={PLAIN}",
        f"AUTH {PLAIN}",
        f"AUTH XOAUTH2 {PLAIN}",
        f"AUTH UNKNOWN {PLAIN}",
        f"AUTHPLAIN {PLAIN}",
        f"AUTH:PLAIN {PLAIN}",
        f"PLAIN {PLAIN}",
        f"login {PASSWORD}",
        f"AUTH LOGIN {PASSWORD}",
        f"AUTH PLAIN {PLAIN} {PASSWORD}",
        f"AUTH PLAIN |{PLAIN}",
        PLAIN,
        PASSWORD,
        f"{PASSWORD}\r",
    ],
)
def test_no_spelling_of_auth_shows_the_password(line):
    shown = redact_command(line.encode())
    assert PLAIN.encode() not in shown
    assert PASSWORD.encode() not in shown


@pytest.mark.parametrize("line", ["EHLO client.example.net", "MAIL FROM:<a@example.net>", "QUIT"])
def test_other_commands_are_shown_as_they_are(line):
    assert redact_command(line.encode()) == line.encode()


def test_a_method_that_is_quoted_is_shown_only_if_it_is_one():
    reply = b'504 5.7.4 Security features not supported: AUTH method "%b" not supported'
    assert redact_reply(reply % b"CRAM-MD5") == reply % b"CRAM-MD5"
    assert redact_reply(reply % PLAIN.encode()) == reply % b"********"
    said = b"report|0.7|1.0|smtp-in|protocol-server|6a14acf1f252dd7b|" + reply
    assert redact(said % PLAIN.encode()) == said % b"********"


@pytest.mark.parametrize("parameter", [f"PLAIN {PLAIN}", f"plain\t{PLAIN}", f"FOO {PLAIN}", PLAIN])
def test_rewrites_of_auth_are_hidden_however_they_are_written(parameter):
    line = f"filter-result|6a14acf1f252dd7b|cc4c3b0478ec7d43|rewrite|{parameter}"
    assert PLAIN.encode() not in redact(line.encode())


def test_a_refusal_of_auth_is_shown_as_it_goes_out():
    line = b"filter-result|6a14acf1f252dd7b|cc4c3b0478ec7d43|rewrite|PLAIN ="
    assert redact(line) == line


@pytest.mark.parametrize(
    ("text", "is_revealed"),
    [("hunter2 is wrong", True), (f"not {PLAIN}", True), ("no alice", False), ("", False)],
)
def test_a_text_reveals_a_password_encoded_or_not(text, is_revealed):
    assert reveals(f"PLAIN {PLAIN}".encode(), text) is is_revealed
