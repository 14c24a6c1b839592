"""The dialogue of AUTH, as smtpd conducts it."""

from __future__ import annotations

import base64

import pytest

from greenfilter._smtpd import texts
from greenfilter._smtpd.smtp_auth import AuthDialogue


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_plain_comes_in_one_command_or_in_two() -> None:
    response = encoded("\0alice\0secret")
    assert AuthDialogue().begin(f"plain {response}") == ("alice", "secret")
    dialogue = AuthDialogue()
    assert dialogue.begin("PLAIN") == "334 "
    assert dialogue.step
    assert dialogue.take(response) == ("alice", "secret")
    assert not dialogue.step


def test_login_asks_for_user_name_and_password() -> None:
    dialogue = AuthDialogue()
    assert dialogue.begin("LOGIN") == f"334 {encoded('Username:')}"
    assert dialogue.take(encoded("alice")) == f"334 {encoded('Password:')}"
    assert dialogue.take(encoded("secret")) == ("alice", "secret")
    assert not dialogue.step


def test_login_takes_the_user_name_with_the_command() -> None:
    dialogue = AuthDialogue()
    assert dialogue.begin(f"login {encoded('alice')}") == f"334 {encoded('Password:')}"
    assert dialogue.take(encoded("secret")) == ("alice", "secret")


@pytest.mark.parametrize("argument", ["PLAIN !", "LOGIN !", f"PLAIN {encoded('alice')}"])
def test_what_cannot_be_read_ends_it(argument: str) -> None:
    dialogue = AuthDialogue()
    assert dialogue.begin(argument) == texts.SYNTAX_ERROR
    assert not dialogue.step


def test_another_mechanism_is_refused() -> None:
    dialogue = AuthDialogue()
    assert dialogue.begin("CRAM-MD5") == texts.unsupported_auth("CRAM-MD5")
    assert not dialogue.step
