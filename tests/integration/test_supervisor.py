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


def test_a_client_that_kills_workers_is_refused_and_one_beside_it_is_not(smtpd, tmp_path):
    path = tmp_path / "killer.py"
    path.write_text("""
import os, time
from greenfilter import Filter
app = Filter("killer", deadline=20.0)
@app.filter.mail_from
def mail_from(ctx, sender):
    time.sleep(0.3)  # other handlers are called meanwhile
    if sender.startswith("killer"): os.abort()
@app.filter.noop
def noop(ctx):
    time.sleep(0.6)
""")
    server = smtpd({"killer": command(path)})
    for refused in (False, False, True):
        with Client(server.port) as killer, Client(server.port) as bystander:
            killer.greet("killer.example.net")
            bystander.greet("bystander.example.net")
            killer.send(b"MAIL FROM:<killer@example.net>\r\n")
            bystander.send(b"NOOP\r\n")
            assert killer.reply()[0].startswith("451 4.3.0 ")
            bystander.reply()
        if refused:
            server.wait_for_log("mail-from has ended workers before: not tried again")
        with Client(server.port) as bystander:
            bystander.greet("bystander.example.net")
            assert bystander.command("NOOP").startswith("250 ")
            assert bystander.command("MAIL FROM:<alice@example.net>").startswith("250 ")
    assert server.alive()


def test_a_worker_that_is_killed_is_replaced_by_the_code_that_was_accepted(smtpd, tmp_path):
    path = tmp_path / "edited.py"
    path.write_text("""
from greenfilter import Filter, reject
app = Filter("edited")
@app.filter.mail_from
def mail_from(ctx, sender):
    return reject(550, "by accepted code")
""")
    server = smtpd({"edited": command(path)})
    path.write_text("this is half an ed")
    for _ in range(2):
        killed = kill_workers(server, "edited")
        wait_for_new_workers(server, "edited", killed)

        def answers():
            with Client(server.port) as client:
                client.greet()
                return client.command("MAIL FROM:<a@example.net>") == "550 by accepted code"

        wait_until(answers, 10, "the accepted code")
    server.wait_for_log("on disk is other code than what runs")
    assert server.alive()
