"""The command, with the clients of the standard library."""

from __future__ import annotations

import base64
import os
import pty
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from textwrap import dedent

import pytest

from tests.support.sink import Sink
from tests.support.wait import wait_until

from .command import TIMEOUT, ServeCommand

HEAD = b"From: a@example.net\r\nTo: b@example.org\r\nSubject: hello\r\n\r\n"


@pytest.fixture
def write(tmp_path):
    def write(code: str) -> str:
        file = tmp_path / "guard.py"
        text = "from greenfilter import *\napp = Filter('guard')\n" + dedent(code)
        replacement = tmp_path / "guard.new"
        replacement.write_text(text)
        replacement.rename(file)
        return str(file)

    return write


def _proceed(write) -> str:
    return write(
        """
        @app.filter.mail_from
        def sender(ctx, address):
            if address.startswith("spammer"):
                return reject(550, "no spam", enhanced="5.7.1")
        """
    )


def _client(server: ServeCommand, starttls: bool = False) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", server.port, "me.example.net", TIMEOUT)
    if starttls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.starttls(context=context)
    return client


def _send(client: smtplib.SMTP, message: bytes, sender: str = "a@example.net") -> None:
    client.sendmail(sender, ["b@example.org"], message)


def test_a_handler_that_decides_is_named_with_its_decision_and_its_time(write):
    with ServeCommand(_proceed(write)) as server, _client(server) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            _send(client, HEAD, "spammer@example.net")
        decided = server.wait_for("decided", phase="mail-from")
    assert (refused.value.smtp_code, refused.value.smtp_error) == (550, b"5.7.1 no spam")
    assert decided["decision"] == "reject|550 5.7.1 no spam"
    assert decided["handlers"] == ["sender"]
    assert 0 < decided["seconds"] < TIMEOUT


@pytest.mark.parametrize("method", ["auth_plain", "auth_login"])
def test_a_user_logs_in_after_starttls_and_the_password_is_shown_nowhere(write, method):
    file = write(
        """
        @app.filter.auth
        def credentials(ctx, method):
            pass
        @app.report.link_auth
        def who(ctx, result, username):
            ctx.log.info("user %s", username)
        """
    )
    with ServeCommand("--user", "alice:secret", file) as server, _client(server, True) as client:
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        client.user, client.password = "alice", "secret"
        code, _ = client.auth(method[5:].upper(), getattr(client, method))
        assert code == 235
        server.wait_for_log("user alice")
    for secret in ("secret", "c2VjcmV0", "AGFsaWNlAHNlY3JldA"):
        assert secret not in "".join(server.lines)


def test_a_wrong_password_is_refused_and_no_auth_is_offered_without_tls(write):
    with ServeCommand("--user", "alice:secret", _proceed(write)) as server:
        with _client(server) as client:
            client.ehlo()
            assert "auth" not in client.esmtp_features
        with (
            _client(server, True) as client,
            pytest.raises(smtplib.SMTPAuthenticationError) as wrong,
        ):
            client.login("alice", "guess")
    assert wrong.value.smtp_code == 535


def test_accepted_mail_is_in_the_maildir_byte_for_byte_with_what_the_filter_changed(
    write, tmp_path
):
    file = write(
        """
        @app.message
        def sign(ctx, message):
            message.headers.prepend("X-Signed", "yes")
        """
    )
    body = bytes(range(0x80, 0x100)) + "\r\n.dot\r\näöü\r\n".encode()
    maildir = tmp_path / "mail"
    with ServeCommand("--maildir", str(maildir), file) as server, _client(server) as client:
        _send(client, HEAD + body)
        filtered = server.wait_for("filtered")
        accepted = server.wait_for("accepted")
    [stored] = (maildir / "new").iterdir()
    data = stored.read_bytes()
    assert accepted["path"] == str(stored)
    envelope, _, message = data.partition(b"X-Signed: yes\n")
    assert envelope == b"Return-Path: <a@example.net>\nDelivered-To: b@example.org\n"
    assert message.endswith((HEAD + body).replace(b"\r\n", b"\n"))
    assert filtered["changes"] == ["+ X-Signed: yes"]
    assert filtered["handlers"] == ["sign"]


def test_a_directory_that_is_there_becomes_a_maildir(write, tmp_path):
    maildir = tmp_path / "mail"
    maildir.mkdir()
    with ServeCommand("--maildir", str(maildir), _proceed(write)) as server:
        with _client(server) as client:
            _send(client, HEAD)
        path = server.wait_for("accepted")["path"]
    assert path is not None
    assert os.path.dirname(path) == str(maildir / "new")


def test_a_big_message_passes_whole(write, tmp_path):
    file = write("@app.lines\ndef same(ctx, lines):\n    yield from lines\n")
    body = b"".join(b"%09d %s\r\n" % (number, b"x" * 68) for number in range(100_000))
    maildir = tmp_path / "mail"
    with ServeCommand("--maildir", str(maildir), file) as server, _client(server) as client:
        client._max_line = None
        _send(client, HEAD + body)
    [stored] = (maildir / "new").iterdir()
    assert stored.read_bytes().endswith((HEAD + body).replace(b"\r\n", b"\n"))


def test_accepted_mail_is_relayed_and_the_filter_gets_the_reports(write):
    file = write(
        """
        @app.report.tx_commit(outgoing=True)
        def handed_over(ctx, message_id, size):
            ctx.log.info("handed over %s", message_id)
        """
    )
    with Sink() as sink:
        relay = ["--smtp-out", f"127.0.0.1:{sink.port}"]
        with ServeCommand(*relay, file) as server, _client(server) as client:
            _send(client, HEAD + b".dot\r\n")
            message_id = server.wait_for("accepted")["message_id"]
            server.wait_for_log(f"handed over {message_id}")
        [received] = sink.messages
    assert received.rcpt_tos == ("b@example.org",)
    assert received.content.endswith(HEAD + b".dot\r\n")


def test_a_relay_that_cannot_be_reached_is_told_of(write):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        ServeCommand("--smtp-out", f"127.0.0.1:{port}", _proceed(write)) as server,
        _client(server) as client,
    ):
        _send(client, HEAD)
        assert "not relayed" in server.wait_for("failed")["error"]


def test_new_sessions_get_the_new_code_and_old_ones_end_on_the_old(write):
    with ServeCommand(_proceed(write)) as server, _client(server) as old:
        write("@app.filter.noop\ndef never(ctx):\n    return reject(550, 'new code')\n")
        server.wait_for("filter-started", again=True)
        with _client(server) as new:
            assert new.noop() == (550, b"new code")
        assert old.noop()[0] == 250
        old.ehlo()
        assert old.mail("spammer@example.net")[0] == 550


def test_code_that_cannot_be_loaded_is_told_of_and_the_old_code_goes_on(write):
    file = _proceed(write)
    with ServeCommand(file) as server:
        write("def broken(:\n")
        failed = server.wait_for("filter-failed")
        with _client(server) as client:
            client.ehlo()
            assert client.mail("spammer@example.net")[0] == 550
        _proceed(write)
        server.wait_for("filter-started", again=True)
    assert failed["goes_on"] is True
    assert failed["error"].startswith(f"{file}:3: ")


def test_code_that_never_finishes_loading_gives_way_to_the_next_change(write):
    with ServeCommand(_proceed(write)) as server:
        file = write("import time\nopen(f'{__file__}.loads', 'w').close()\ntime.sleep(3600)\n")
        wait_until(lambda: os.path.exists(f"{file}.loads"), TIMEOUT, "the loading")
        write("@app.filter.noop\ndef never(ctx):\n    return reject(550, 'two')\n")
        server.wait_for("filter-started", again=True)
        with _client(server) as client:
            assert client.noop() == (550, b"two")


def test_a_module_beside_the_filter_is_watched_too(write, tmp_path):
    (tmp_path / "texts_of_guard.py").write_text("REPLY = 'one'\n")
    file = write(
        """
        import texts_of_guard
        @app.filter.noop
        def never(ctx):
            return reject(550, texts_of_guard.REPLY)
        """
    )
    with ServeCommand(file) as server:
        (tmp_path / "texts_of_guard.py").write_text("REPLY = 'another'\n")
        server.wait_for("filter-started", again=True)
        with _client(server) as client:
            assert client.noop() == (550, b"another")


def test_a_module_that_is_no_longer_needed_may_be_deleted(write, tmp_path):
    (tmp_path / "texts_of_guard.py").write_text("REPLY = 'one'\n")
    file = write("import texts_of_guard\n@app.filter.noop\ndef never(ctx):\n    pass\n")
    with ServeCommand(file) as server:
        (tmp_path / "texts_of_guard.py").unlink()
        write("@app.filter.noop\ndef never(ctx):\n    return reject(550, 'two')\n")
        server.wait_for("filter-started", again=True)
        with _client(server) as client:
            assert client.noop() == (550, b"two")


@pytest.mark.parametrize("helper", ["def broken(:\n", "import missing_of_guard\n", None])
def test_new_code_is_loaded_when_the_module_is_mended_that_it_could_not_be_loaded_for(
    write, tmp_path, helper
):
    path = tmp_path / "texts_of_guard.py"
    with ServeCommand(_proceed(write)) as server:
        if helper is not None:
            path.write_text(helper)
        write(
            """
            import texts_of_guard
            @app.filter.noop
            def never(ctx):
                return reject(550, texts_of_guard.REPLY)
            """
        )
        server.wait_for("filter-failed")
        path.write_text("REPLY = 'mended'\n")
        server.wait_for("filter-started", again=True)
        with _client(server) as client:
            assert client.noop() == (550, b"mended")


def test_sessions_do_not_wait_for_each_other(write):
    # Nobody gets an answer before all have asked.
    file = write(
        """
        import threading
        together = threading.Barrier(10)
        @app.filter.noop
        def wait(ctx):
            together.wait()
        """
    )
    replies = []
    with ServeCommand(file) as server:

        def noop() -> None:
            with _client(server) as client:
                replies.append(client.noop()[0])

        threads = [threading.Thread(target=noop) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert replies == [250] * 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_open_sessions_and_leaves_no_process(write, number):
    file = write(
        """
        import os, time
        @app.filter.noop
        def hold(ctx):
            ctx.log.info("worker %d", os.getpid())
            time.sleep(3600)
        """
    )
    with ServeCommand(file) as server, socket.create_connection(("127.0.0.1", server.port)) as sock:
        lines = sock.makefile("rb")
        assert lines.readline().startswith(b"220 ")
        sock.sendall(b"NOOP\r\n")
        pid = int(server.wait_for_log("worker ").split("worker ")[1])
        assert server.stop(number) == 0
        assert lines.readline() == b""
        lines.close()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), TIMEOUT, "the worker's end")


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "greenfilter", "serve", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)


def test_a_filter_that_cannot_be_loaded_ends_it_with_its_file_and_line(write):
    file = write("def broken(:\n")
    done = _run("--listen", "127.0.0.1:0", file)
    assert done.returncode == 1
    assert done.stderr == f"greenfilter: {file}:3: invalid syntax\n"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--listen", "nonsense"], "--listen nonsense: write HOST:PORT"),
        (["--smtp-out", "::1:25x"], "--smtp-out ::1:25x: write HOST:PORT"),
        (["--user", "alice"], "--user: write NAME:PASSWORD"),
        (["--src", "client"], "--src client: not a valid address"),
        (["--maildir", "/dev/null"], "--maildir /dev/null: Not a directory"),
        (["--maildir", "/dev/null/mail"], "--maildir /dev/null/mail: Not a directory"),
    ],
)
def test_a_wrong_option_is_named(write, options, text):
    done = _run("--listen", "127.0.0.1:0", *options, _proceed(write))
    assert done.returncode == 2
    assert done.stderr.startswith(f"greenfilter: {text}")


@pytest.mark.parametrize(
    ("command", "text"),
    [("guard 'half", "No closing quotation"), (" ", "the command is empty")],
)
def test_a_command_that_is_none_is_told(command, text):
    done = _run("--listen", "127.0.0.1:0", "--proc-exec", command)
    assert done.returncode == 2
    assert done.stderr.startswith("greenfilter: ")
    assert text in done.stderr


def test_an_address_in_use_is_named(write):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = _run("--listen", f"127.0.0.1:{port}", _proceed(write))
    assert done.returncode == 2
    assert done.stderr == f"greenfilter: 127.0.0.1:{port}: Address already in use\n"


def test_the_transcript_is_plain_in_a_file_and_coloured_on_a_terminal(write):
    plain, coloured = (_transcript(write, tty=tty) for tty in (False, True))
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain
    assert " #1 C: NOOP\n" in plain
    assert " #1 S: 250 2.0.0 Ok\n" in plain
    assert " #1    noop       wave             proceed (" in plain


def _transcript(write, tty: bool) -> str:
    """What a session with NOOP and QUIT looks like."""
    file = write("@app.filter.noop\ndef wave(ctx):\n    pass\n")
    ours, theirs = pty.openpty() if tty else os.pipe()
    command = [sys.executable, "-m", "greenfilter", "serve", "--listen", "127.0.0.1:0", file]
    server = subprocess.Popen(command, stdout=theirs)
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as output:
        while b"listening on" not in shown or not shown.endswith(b"\n"):
            shown += output.read(4096)
        port = int(shown.split(b"127.0.0.1:")[1].split(b",")[0])
        with socket.create_connection(("127.0.0.1", port)) as sock, sock.makefile("rb") as lines:
            lines.readline()
            for command_line in (b"NOOP\r\n", b"QUIT\r\n"):
                sock.sendall(command_line)
                lines.readline()
        while b"disconnected" not in shown:
            shown += output.read(4096)
        server.send_signal(signal.SIGINT)
        assert server.wait(TIMEOUT) == 0
    return shown.decode()


def test_without_cryptography_there_is_no_starttls_and_it_says_so(write):
    code = (
        "import sys; sys.modules['cryptography'] = None; "
        "from greenfilter._commands import main; main()"
    )
    program = ["-c", code]
    with ServeCommand(_proceed(write), program=program) as server, _client(server) as client:
        client.ehlo()
        assert not client.has_extn("starttls")
        assert "pip install cryptography" in server.wait_for("note")["note"]


def test_it_can_be_made_to_require_auth(write):
    options = ["--user", "alice:secret", "--require-auth"]
    with ServeCommand(*options, _proceed(write)) as server:
        with _client(server) as client:
            client.ehlo()
            assert client.mail("a@example.net")[0] == 530
        with _client(server, True) as client:
            client.login("alice", "secret")
            _send(client, HEAD)


def test_a_filter_that_takes_long_to_load_does_not_keep_it_from_ending(write, tmp_path):
    file = write(
        "import os, time\nprint(os.getpid(), file=open('pid', 'w'), flush=True)\ntime.sleep(3600)\n"
    )
    server = ServeCommand(file, cwd=tmp_path)
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"), TIMEOUT, "the pid")
    assert server.stop() == 0
    assert not os.path.exists(f"/proc/{pid.read_text().strip()}")


def test_it_ends_when_nobody_reads_its_output(write):
    command = [sys.executable, "-m", "greenfilter", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen([*command, _proceed(write)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        line = next(line for line in server.stdout if b"listening" in line)
        server.stdout.close()
        port = int(line.split(b"127.0.0.1:")[1].split(b",")[0])
        with socket.create_connection(("127.0.0.1", port)):
            assert server.wait(TIMEOUT) == 0


def test_clients_can_come_by_ipv6(write):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    with ServeCommand("--listen", "[::1]:0", _proceed(write)) as server:
        assert server.wait_for("listening")["address"] == f"[::1]:{server.port}"
        with smtplib.SMTP("::1", server.port, "me.example.net", TIMEOUT) as client:
            assert client.helo()[0] == 250
        connected = server.wait_for("connected")
    assert connected["src"].startswith("[::1]:")


def test_clients_seem_to_come_from_where_it_is_told(write):
    file = write(
        """
        @app.filter.connect
        def who(ctx, rdns, address):
            ctx.log.info("%s %s", rdns, address.ip)
        """
    )
    options = ["--src", "203.0.113.5", "--rdns", "spam.example.com"]
    with ServeCommand(*options, file) as server, _client(server):
        server.wait_for_log("spam.example.com 203.0.113.5")
        assert server.wait_for("connected")["fcrdns"] == "pass"


@pytest.mark.parametrize("options", [[], ["--show-protocol"]])
def test_no_spelling_of_auth_has_its_password_told(write, options):
    password = "hunter2-very-secret"
    plain = base64.b64encode(f"\0alice\0{password}".encode()).decode()
    alone = base64.b64encode(password.encode()).decode()
    talks = [
        [f"AUTH PLAIN {plain}"],
        [f"auth plain {plain}"],
        [f"AUTH  PLAIN {plain}"],
        [f"AUTH\tPLAIN {plain}"],
        [f"AUTH {plain}"],
        [f"AUTH XOAUTH2 {plain}"],
        [f"AUTH PLAIN={plain}"],
        ["AUTH PLAIN", plain, plain],
        ["AUTH LOGIN", "YWxpY2U=", alone, alone],
    ]
    file = write("""
        @app.filter.auth
        def auth(ctx, credentials):
            pass

        @app.report.protocol_client
        def protocol_client(ctx, line):
            raise ValueError(line)
    """)
    with ServeCommand("--user", f"alice:{password}", *options, file) as server:
        for talk in talks:
            for has_tls in (False, True):
                with _client(server, has_tls) as client:
                    client.ehlo("me.example.net")
                    for line in talk:
                        client.docmd(line)
        server.wait_for_log("ValueError")
        wait_until(lambda: len(server.events("disconnected")) == 18, TIMEOUT, "the last line")
    text = "".join(server.lines)
    assert "ValueError" in text
    for secret in (password, plain, alone):
        assert secret not in text
