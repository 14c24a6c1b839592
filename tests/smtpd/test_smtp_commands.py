from __future__ import annotations

import pytest

from greenfilter._smtpd.smtp_commands import is_domain, parse_path, parse_plain, split_command


@pytest.mark.parametrize(
    ("line", "verb", "argument"),
    [
        ("QUIT", "QUIT", None),
        ("quit ", "QUIT", ""),
        ("EHLO  two  spaces", "EHLO", "two  spaces"),
        ("mail from: <a@b> SIZE=1", "MAIL FROM", "<a@b> SIZE=1"),
        ("MAIL FROM", "MAIL", "FROM"),
        ("RCPT TO:", "RCPT TO", ""),
        ("", "", None),
    ],
)
def test_a_command_line_has_a_verb_and_perhaps_an_argument(line, verb, argument):
    assert split_command(line) == (verb, argument)


@pytest.mark.parametrize(
    ("argument", "address"),
    [
        ("<a@example.net>", "a@example.net"),
        ("<b|ob@example.org> NOTIFY=NEVER", "b|ob@example.org"),
        ("<bob>", "bob@mx.example.org"),
        ("<bob@>", "bob@mx.example.org"),
        ("<@relay.example:bob@example.org>", "bob@example.org"),
        ("<a@[192.0.2.1]>", "a@[192.0.2.1]"),
    ],
)
def test_a_path_has_brackets(argument, address):
    assert parse_path(argument, "mx.example.org", null_allowed=False).address == address


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "a@b",
        "<a@b",
        "<al ice@b.org>",
        "<a@b..c>",
        '<"a b"@c>',
        "<jörg@c>",
        "<@>",
        "<a@b.>",
        "<a@-b.c>",
        "<>",
    ],
)
def test_a_syntax_error_is_no_path(argument):
    assert parse_path(argument, "mx.example.org", null_allowed=False) is None


def test_the_null_sender_is_a_path_where_it_is_allowed():
    assert parse_path("<> SIZE=1", "mx.example.org", null_allowed=True) == ("", ["SIZE=1"])


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("client.example.net", True),
        ("a", True),
        ("[192.0.2.10]", True),
        ("[IPv6:2001:db8::1]", True),
        ("[nonsense]", False),
        ("two words", False),
        ("", False),
        ("x" * 300, False),
        ("x" * 63 + ".example.net", True),
        ("x" * 64 + ".example.net", False),
        (".".join(["x" * 49] * 5) + ".abc", True),
        (".".join(["x" * 49] * 5) + ".abcd", False),
        ("-a.example.net", False),
        ("a-.-b.example.net", True),
        ("a.example.net.", False),
        ("[::1]", True),
        ("[IPV6:192.0.2.1]", True),
        ("[192.0.2]", False),
        ("[192.0.2.1", False),
        ("[fe80::1%eth0]", False),
        ("é.example.net", False),
    ],
)
def test_what_helo_accepts(text, valid):
    assert is_domain(text) is valid


@pytest.mark.parametrize(
    ("response", "credentials"),
    [
        ("AGFsaWNlAHNlY3JldA==", ("alice", "secret")),
        ("YXV0aHp8aWQAYWxpY2UAc2VjcmV0", ("alice", "secret")),
        ("AG5vfGJvZHkAeA==", ("no|body", "x")),
        ("!!!notbase64", None),
        ("YWxpY2U=", None),
    ],
)
def test_a_plain_response_holds_user_name_and_password(response, credentials):
    assert parse_plain(response) == credentials
