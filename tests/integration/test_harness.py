"""The harness itself, with a filter that does not use greenfilter."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support import echo_filter
from tests.support.client import Client, send_message
from tests.support.smtpd import Smtpd, SmtpdError
from tests.support.wait import wait_until

ECHO = f"{sys.executable} {Path(echo_filter.__file__)}"


def test_a_message_passes_smtpd_and_a_plain_filter_byte_for_byte(smtpd, sink):
    server = smtpd({"echo": ECHO}, sink=sink)
    body = b"..two dots\r\n.\xe9|a|b\r\nbare \r cr\r\n" + b"x" * 1900 + b"\r\n"
    with Client(server.port) as client:
        client.greet()
        client.envelope("alice@example.net", "bob@example.org")
        assert client.data(b"Subject: exact\r\n\r\n" + body).startswith("250 ")
        assert client.quit().startswith("221 ")
    message = sink.by_subject("exact")
    assert (message.mail_from, message.rcpt_tos) == ("alice@example.net", ("bob@example.org",))
    assert message.body == body


def test_long_lines_reach_the_sink_whole(smtpd, sink):
    server = smtpd({}, sink=sink)
    line = b"y" * 65_000 + b"\r\n"
    send_message(server.plain_port, b"Subject: long\r\n\r\n" + line)
    assert sink.by_subject("long").body == line


def test_smtp_out_reports_reach_the_relay_filter(smtpd, sink):
    server = smtpd({"echo": ECHO}, relay_filter="echo", sink=sink)
    send_message(server.port, b"Subject: out\r\n\r\nhello\r\n")
    server.wait_for_log("echo: reported smtp-out tx-commit")


def test_two_filters_are_told_apart_and_end_with_smtpd(smtpd):
    server = smtpd({"one": ECHO, "two": ECHO})
    assert server.filter_pid("one") != server.filter_pid("two")
    assert set(server.filter_pids()) == {server.filter_pid("one"), server.filter_pid("two")}
    assert server.alive()
    assert server.stop() < 5
    assert not server.alive()
    assert server.pids() == []


def test_two_servers_run_side_by_side(smtpd, sink):
    for server in (smtpd({"echo": ECHO}, sink=sink), smtpd({"echo": ECHO}, sink=sink)):
        send_message(server.port, b"Subject: side by side\r\n\r\n")
    sink.wait_for(2)


def test_the_death_of_a_filter_ends_smtpd(smtpd):
    server = smtpd({"echo": ECHO})
    os.kill(server.filter_pid("echo"), signal.SIGKILL)
    server.wait_for_log("lost processor: echo")
    wait_until(lambda: not server.alive(), 5, "smtpd to end")


def test_a_filter_that_cannot_start_is_an_error_with_the_log(require_smtpd):
    with pytest.raises(SmtpdError, match="lost processor: absent"):
        Smtpd({"absent": "/nonexistent/filter"}).__enter__()


def test_a_proxied_client_has_the_claimed_address(smtpd):
    server = smtpd({"echo": ECHO})
    for address in ("192.0.2.77", "2001:db8::77"):
        with Client(server.proxy_port, proxy=address) as client:
            client.greet()
        server.wait_for_log(f"smtp connected address=.*{address}")


def test_local_mail_is_submitted_over_the_socket(smtpd, sink):
    server = smtpd({"echo": ECHO}, sink=sink)
    server.sendmail(b"Subject: local\n\nhello\n", "-f", "alice@example.net", "bob@example.org")
    assert sink.by_subject("local").mail_from == "alice@example.net"


def test_a_process_that_ignores_the_end_is_killed_and_reported(require_smtpd, tmp_path):
    stubborn = tmp_path / "stubborn.py"
    stubborn.write_text(
        "import sys, time\n"
        "while sys.stdin.readline() != 'config|ready\\n': pass\n"
        "print('register|ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    server = Smtpd({"stubborn": f"{sys.executable} {stubborn}"})
    server.start()
    pid = server.filter_pid("stubborn")
    with pytest.raises(SmtpdError, match="left after SIGTERM"):
        server.stop(timeout=0.5)
    wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), 5, "the process to be killed")
