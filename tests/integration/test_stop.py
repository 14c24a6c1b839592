"""The end of smtpd, and filters that cannot start."""

import re

import pytest

from tests.support.client import Client
from tests.support.filters import command
from tests.support.smtpd import SmtpdError


def test_an_idle_filter_ends_within_a_second_of_smtpd(smtpd, tmp_path):
    server = smtpd({"trace": command("trace", tmp_path / "trace")})
    assert server.stop() < 1


def test_delete_hooks_of_open_sessions_and_messages_run_when_smtpd_stops(smtpd, tmp_path):
    trace = tmp_path / "trace"
    server = smtpd({"trace": command("trace", trace)})
    with Client(server.port) as idle, Client(server.port) as sending:
        idle.greet()
        sending.greet()
        sending.envelope("alice@example.net", "bob@example.org")
        assert sending.command("DATA").startswith("354 ")
        assert server.stop() < 1
    lines = trace.read_text().splitlines()
    assert sum(line.endswith("session-delete") for line in lines) == 2
    assert sum(line.endswith("message-delete") for line in lines) == 1


def test_a_filter_whose_callback_blocks_ends_with_smtpd(smtpd):
    server = smtpd({"slow": command("slow")})
    with Client(server.port) as client:
        client.greet()
        client.send(b"MAIL FROM:<wait@example.net>\r\n")
        with Client(server.port) as other:
            other.greet()
        assert server.stop() < 5


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("def", "wrong.py:1"),
        ("import greenfilter", "wrong.py.* no "),
        ("from greenfilter import Filter\napp = Filter('a')\nother = Filter('b')", "wrong.py"),
        ("from greenfilter import Filter\napp = Filter('a')", "wrong.py"),
        ("raise OSError('on purpose')", "wrong.py.*on purpose"),
    ],
)
def test_smtpd_does_not_start_with_a_filter_file_that_is_wrong(smtpd, tmp_path, content, complaint):
    path = tmp_path / "wrong.py"
    path.write_text(content + "\n")
    with pytest.raises(SmtpdError, match="lost processor: wrong") as caught:
        smtpd({"wrong": command(path)})
    lines = [line for line in str(caught.value).splitlines() if line.startswith("wrong: ")]
    assert len(lines) == 1
    assert re.search(complaint, lines[0])
