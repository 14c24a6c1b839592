"""Worker processes that die or are replaced while smtpd runs, and running without them."""

import os
import signal

from tests.support.client import Client
from tests.support.filters import command
from tests.support.wait import wait_until


def workers(server, name):
    return set(server.filter_pids()) - {server.filter_pid(name)}


def kill_workers(server, name):
    """Kill the workers and return them."""
    killed = workers(server, name)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    return killed


def wait_for_new_workers(server, name, old):
    """Wait for a worker that is none of ``old``. Until then, requests are refused for a while."""
    wait_until(lambda: workers(server, name) - old, 10, "a new worker")


def test_a_request_that_a_killed_worker_owed_is_refused_and_its_session_goes_on(smtpd, sink):
    server = smtpd({"slow": command("slow")}, sink=sink)
    with Client(server.port) as client:
        client.greet()
        client.send(b"MAIL FROM:<wait@example.net>\r\n")
        with Client(server.port) as other:
            # Answered later than the first request was delivered to the worker.
            other.greet()
            assert other.command("MAIL FROM:<alice@example.net>").startswith("250 ")
        killed = kill_workers(server, "slow")
        assert client.reply()[0].startswith("451 4.3.0 ")
        wait_for_new_workers(server, "slow", killed)
        client.envelope("alice@example.net", "bob@example.org")
        assert client.data(b"Subject: survived\r\n\r\nhello\r\n").startswith("250 ")
    assert sink.by_subject("survived").body == b"hello\r\n"
    assert server.alive()


def test_a_message_whose_worker_is_killed_midway_is_refused_and_can_be_sent_again(smtpd, sink):
    server = smtpd({"gone": command("gone", "lines")}, sink=sink)
    with Client(server.port) as client:
        client.greet()
        client.envelope("alice@example.net", "bob@example.org")
        assert client.command("DATA").startswith("354 ")
        client.send(b"Subject: cut\r\n\r\nhalf\r\n")
        server.wait_for_log("gone: tapped half")
        killed = kill_workers(server, "gone")
        client.send(b"other half\r\n.\r\n")
        assert client.reply()[0].startswith("451 4.3.0 ")
        wait_for_new_workers(server, "gone", killed)
        client.envelope("alice@example.net", "bob@example.org")
        assert client.data(b"Subject: again\r\n\r\nwhole\r\n").startswith("250 ")
    assert sink.by_subject("again").body == b"whole\r\n"
    assert len(sink.messages) == 1


def test_session_and_transaction_are_known_to_the_new_worker(smtpd, sink):
    server = smtpd({"decide": command("decide")}, sink=sink)
    with Client(server.port) as client:
        client.greet("known.example.net")
        client.envelope("mail-from-rewrite@example.net", "bob@example.org")
        wait_for_new_workers(server, "decide", kill_workers(server, "decide"))
        assert client.data(b"Subject: known\r\n\r\n").startswith("250 ")
    server.wait_for_log("committed known.example.net rewritten@example.net bob@example.org")


def test_sighup_gives_new_sessions_the_new_code_and_old_ones_keep_theirs(smtpd, tmp_path):
    path = tmp_path / "reloaded.py"
    code = """
from greenfilter import Filter, reject
app = Filter("reloaded")
@app.filter.mail_from
def mail_from(ctx, sender):
    return reject(550, "by {} code")
"""
    path.write_text(code.format("old"))
    server = smtpd({"reloaded": command(path)})
    with Client(server.port) as old:
        old.greet()
        path.write_text(code.format("new"))
        before = workers(server, "reloaded")
        os.kill(server.filter_pid("reloaded"), signal.SIGHUP)
        wait_for_new_workers(server, "reloaded", before)

        def new_session_has_new_code():
            with Client(server.port) as new:
                new.greet()
                return new.command("MAIL FROM:<a@example.net>") == "550 by new code"

        wait_until(new_session_has_new_code, 10, "the new code")
        assert old.command("MAIL FROM:<a@example.net>") == "550 by old code"
    assert server.alive()


def test_without_a_supervisor_one_process_does_it_all(smtpd, sink, tmp_path):
    trace = tmp_path / "trace"
    server = smtpd({"trace": command("trace", trace, options=["--no-supervisor"])}, sink=sink)
    assert len(workers(server, "trace")) == 1  # it passes the log on
    with Client(server.port) as client:
        client.greet()
        client.envelope("alice@example.net", "bob@example.org")
        assert client.data(b"Subject: alone\r\n\r\n.dot\r\n").startswith("250 ")
        assert sink.by_subject("alone").body == b".dot\r\n"
        assert server.stop() < 1
    assert trace.read_text().count("session-delete") == 1
