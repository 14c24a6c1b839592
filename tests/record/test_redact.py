"""Passwords are not recorded, all else is."""

import base64

import pytest

from greenfilter._record._redact import redact, redact_auth
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
    assert redact_auth(parameter) == recorded
    assert redact(ASK + parameter) == ASK + recorded


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
    assert redact(line) == recorded


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
    assert redact(line) == line


def test_each_line_of_many_is_looked_at_alone():
    lines = [SAID + b"QUIT", SAID + b"c2VjcmV0", ASK + b"PLAIN", b"x", ASK + b"PLAIN c2VjcmV0"]
    assert redact(b"\n".join(lines)) == b"\n".join(redact(line) for line in lines)


def test_no_password_of_the_recorded_servers_is_left():
    secrets = [b"AHNlY3JldA", b"c2VjcmV0", b"wYXxzcw", b"YWxpY2U=\n", b"!!!notbase64"]
    seen = set()
    for log in LOGS:
        data = (TRANSCRIPTS / log).read_bytes().replace(b"\n< ", b"\n").replace(b"\n> ", b"\n")
        seen |= {secret for secret in secrets if secret in data}
        found = [secret for secret in secrets if secret in redact(data)]
        assert not found, log
    assert seen == set(secrets)
