"""Callbacks that go wrong: the client gets an answer, and smtpd lives."""

import pytest

from tests.support.client import Client
from tests.support.filters import command
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd


@pytest.fixture(scope="module")
def running_server(require_smtpd):
    with Sink() as sink, Smtpd({"faulty": command("faulty")}, sink=sink) as server:
        yield server


@pytest.fixture
def server(running_server):
    running_server.sink.clear()
    yield running_server
    assert running_server.alive(), running_server.last_log()


def mail_from(server, sender):
    with Client(server.port) as client:
        client.greet()
        reply = client.command(f"MAIL FROM:<{sender}@example.net>")
        assert client.command("HELP").startswith("214 ")
        return reply


@pytest.mark.parametrize("fault", ["raise", "exit", "sleep", "number", "text", "newline"])
def test_a_callback_that_fails_is_answered_by_policy_and_logged_by_name(server, fault):
    logged = len(server.log)
    assert mail_from(server, fault).startswith("451 4.3.0 ")
    server.wait_for_log("faulty: .*mail_from", start=logged)


def test_newlines_in_a_reply_become_spaces(server):
    assert mail_from(server, "reject-newline") == "550 one  two three"


def test_what_is_printed_goes_to_the_log_and_not_to_smtpd(server):
    logged = len(server.log)
    assert mail_from(server, "stdout").startswith("250 ")
    for text in ("filter-result|0123456789abcdef", "register|ready", "nonsense"):
        server.wait_for_log(f"faulty: {text}".replace("|", r"\|"), start=logged)


def test_a_deferred_request_is_answered_from_a_thread(server):
    assert mail_from(server, "thread") == "550 from a thread"


def test_a_second_answer_changes_nothing(server):
    assert mail_from(server, "twice") == "550 first"
    server.wait_for_log("faulty: answers True False")


def test_an_answer_after_the_deadline_changes_nothing(server):
    assert mail_from(server, "late").startswith("451 4.3.0 ")
    assert mail_from(server, "late-answers").startswith("250 ")
    server.wait_for_log("faulty: late False$")


def test_a_failure_in_a_data_line_keeps_the_lines_and_refuses_at_commit(server):
    with Client(server.port) as client:
        client.greet()
        client.envelope("fine@example.net", "bob@example.org")
        assert client.data(b"Subject: bad\r\n\r\nraise\r\n").startswith("451 4.3.0 ")
        client.envelope("fine@example.net", "bob@example.org")
        assert client.data(b"Subject: good\r\n\r\nhello\r\n").startswith("250 ")
    assert server.sink.by_subject("good").body == b"hello\r\n"
    assert len(server.sink.messages) == 1
