"""The commands take a chain like any filter."""

from __future__ import annotations

import json
import re
import shlex
import smtplib
import socket
import subprocess
import sys

import pytest

from tests.commands.serve.command import TIMEOUT, ServeCommand

from ..testing.driving import tap

GUARD = """
import sys
from greenfilter import Filter, reject

app = Filter("guard")
refused = sys.argv[1:]

@app.filter.rcpt_to
def rcpt(ctx, recipient):
    return reject(550, "no") if recipient.partition("@")[0] in refused else None

@app.lines
def footer(ctx, lines):
    yield from lines
    yield b"-- "
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "guard.py").write_text(GUARD)

    def write_chain(text: str) -> str:
        path, new = tmp_path / "mx.toml", tmp_path / "mx.new"
        new.write_text(text)
        new.rename(path)
        return str(path)

    return write_chain


TWO = """
[[filter]]
run = "guard.py"
options = ["carol"]

[[filter]]
run = "guard.py"
options = ["dave"]
name = "second"
"""


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "greenfilter", *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT * 3,
    )


class TestCheck:
    def test_lists_members_with_hooks_and_conditions_and_the_lines_of_smtpd_conf(self, write):
        path = write(
            TWO + 'when = { tls = true, networks = ["192.0.2.0/24"] }\nobserve = true\n'
            f"[[filter]]\nexec = {json.dumps(shlex.join(tap(register=['filter|smtp-in|ehlo'])))}\n"
            "name = 'other'\n"
        )
        done = command("check", path)
        assert (done.returncode, done.stderr) == (0, "other: registered\n")
        lines = [line.strip() for line in done.stdout.splitlines()]
        assert lines[:2] == [f"mx: {path}", "1. guard: run guard.py carol"]
        assert "2. second: run guard.py dave, observes" in lines
        assert "when tls = True, networks = ['192.0.2.0/24']" in lines
        (other,) = [line for line in lines if line.startswith("filter.ehlo")]
        assert " other: " in other
        assert re.search(r'filter "mx" proc-exec ".*greenfilter run .*mx\.toml"', done.stdout)
        assert 'listen on 0.0.0.0 filter "mx"' in lines

    def test_warns_of_conditions_that_the_client_chooses(self, write):
        done = command("check", write(TWO + 'unless = { senders = ["@example.net"] }\n'))
        assert done.returncode == 0
        (line,) = done.stderr.splitlines()
        assert re.search(r"mx\.toml:6: warning: second: unless\.senders: the client cho", line)

    def test_warns_of_relative_paths_in_options_of_stock_filters(
        self, write, monkeypatch, tmp_path
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "rules.toml").write_text("")
        path = write(
            '[[filter]]\nrun = "rbl"\noptions = ["--zone", "zen.example.org"]\n'
            '[[filter]]\nrun = "headers"\noptions = ["--rules", "rules.toml"]\n'
        )
        done = command("check", path)
        assert done.returncode == 0
        assert done.stderr == (
            f"{path}:4: warning: headers: --rules rules.toml: taken from where smtpd starts, "
            "/ as a rule; write the whole path\n"
        )
        assert command("check", "--strict", path).returncode == 1

    def test_finds_the_mistakes_of_members(self, write, tmp_path):
        (tmp_path / "wrong.py").write_text(
            "from greenfilter import *\napp = Filter('wrong')\n"
            "@app.filter.commit\ndef commit(ctx):\n    return junk()\n"
        )
        done = command("check", write('[[filter]]\nrun = "wrong.py"\n'))
        assert done.returncode == 1
        assert "wrong.py:5: filter.commit: junk is not legal here" in done.stderr

    def test_tells_all_that_is_wrong_with_the_file(self, write):
        done = command("check", write('nam = 1\n[[filter]]\nrun = "x.py"\n[[filter]]\n'))
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 3

    def test_tells_of_a_program_that_does_not_register(self, write):
        done = command("check", write('[[filter]]\nexec = "/bin/true"\n'))
        assert done.returncode == 1
        assert re.search(r"mx\.toml:1: true: it ended, status 0", done.stderr)

    def test_tells_of_a_program_that_the_user_may_not_run(self, write, tmp_path):
        script = tmp_path / "own.sh"
        script.write_text("#!/bin/sh\necho register\\|ready\nexec sleep 60\n")
        script.chmod(0o700)
        done = command("check", "--user", "nobody", write(f"[[filter]]\nexec = '{script}'\n"))
        assert done.returncode == 1
        assert "own.sh" in done.stderr


def test_bench_times_each_member(write):
    done = command("bench", "--sessions", "30", "--json", write(TWO))
    assert done.returncode == 0, done.stderr
    names = {handler["name"] for handler in json.loads(done.stdout)["handlers"]}
    assert {"guard: rcpt", "guard: footer", "second: rcpt", "second: footer"} <= names


def test_serve_names_the_member_that_decided_and_takes_a_new_file(write):
    path = write(TWO)
    with ServeCommand(path) as server:
        with smtplib.SMTP("127.0.0.1", server.port, "me.example.net", TIMEOUT) as client:
            client.ehlo()
            client.mail("alice@example.net")
            assert client.rcpt("dave@example.org")[0] == 550
        decided = server.wait_for("decided", decision="reject|550 no")
        assert decided["handlers"] == ["second (member 2)"]
        assert "by second (member 2)" in server.wait_for_log("rcpt-to: reject('550 no')")
        write(TWO.replace('"dave"', '"erin"'))
        server.wait_for("filter-started", again=True)
        with smtplib.SMTP("127.0.0.1", server.port, "me.example.net", TIMEOUT) as client:
            client.ehlo()
            client.mail("alice@example.net")
            assert client.rcpt("dave@example.org")[0] == 250
            assert client.rcpt("erin@example.org")[0] == 550


DATA = b"Subject: x\r\n\r\nhello\r\n"


def decided_by(server: ServeCommand) -> list[tuple[str, str, list[str]]]:
    """Phase, decision and who is named, for each answer."""
    return [
        (event["phase"], event["decision"].partition("|")[0], event["handlers"])
        for event in server.events("decided")
    ]


def test_serve_names_who_has_edited_a_message_and_nobody_where_all_let_pass(write, tmp_path):
    (tmp_path / "looking.py").write_text(
        "from greenfilter import Filter\napp = Filter('looking')\n"
        "@app.message\ndef look(ctx, message):\n    pass\n"
    )
    text = '[[filter]]\nrun = "looking.py"\n' + TWO
    with ServeCommand(write(text)) as server:
        with smtplib.SMTP("127.0.0.1", server.port, "me.example.net", TIMEOUT) as client:
            client.sendmail("alice@example.net", ["bob@example.org"], DATA)
        filtered = server.wait_for("filtered")
        assert filtered["handlers"] == ["guard (member 2), second (member 3)"]
        assert (filtered["changes"], filtered["refused"]) == (["+ -- ", "+ -- "], False)
        server.wait_for("disconnected")
        assert decided_by(server) == [
            ("rcpt-to", "proceed", ["mx"]),
            ("data", "proceed", ["mx"]),
            ("commit", "proceed", ["mx"]),
        ]


def test_serve_tells_that_a_message_was_refused_and_by_whom(write, tmp_path):
    (tmp_path / "refusing.py").write_text(
        "from greenfilter import Filter, reject\napp = Filter('refusing')\n"
        "@app.message\ndef refuse(ctx, message):\n    return reject(550, 'spam')\n"
    )
    text = TWO + '[[filter]]\nrun = "refusing.py"\n'
    with ServeCommand(write(text)) as server:
        with (
            smtplib.SMTP("127.0.0.1", server.port, "me.example.net", TIMEOUT) as client,
            pytest.raises(smtplib.SMTPDataError),
        ):
            client.sendmail("alice@example.net", ["bob@example.org"], DATA)
        filtered = server.wait_for("filtered")
        assert (filtered["changes"], filtered["refused"]) == ([], True)
        decided = server.wait_for("decided", phase="commit")
        assert decided["handlers"] == ["refusing (member 3)"]


class TestHelp:
    @pytest.mark.parametrize("words", [["run"], ["check"], ["serve"], ["bench"]])
    def test_says_what_the_chain_is(self, write, words):
        path = write(
            TWO + 'unless = { authenticated = true }\n[[filter]]\nrun = "rbl"\n'
            'options = ["--zone", "zen.example.org"]\n'
        )
        for option in ("--help", "-h"):
            done = command(*words, path, option)
            assert (done.returncode, done.stderr) == (0, "")
            text = " ".join(done.stdout.split())
            assert f"greenfilter {words[0]} [OPTIONS] {path}" in text
            assert "1. guard: run guard.py carol hooks: rcpt-to, data-line" in text
            assert "2. second: run guard.py dave unless authenticated = True" in text
            assert "3. rbl: run rbl --zone zen.example.org hooks: " in text
            assert "greenfilter run rbl --help" in text
            assert "greenfilter run guard.py --help" not in text

    def test_a_program_is_not_started_for_it(self, write, tmp_path):
        path = write(f"[[filter]]\nexec = '/bin/sh -c \"touch {tmp_path}/started\"'\n")
        done = command("run", path, "--help")
        assert done.returncode == 0
        assert "1. sh: exec /bin/sh -c" in done.stdout
        assert not (tmp_path / "started").exists()

    def test_a_broken_file_is_told(self, write):
        done = command("run", write("[[filter]]\n"), "--help")
        assert done.returncode == 2
        assert "filter 1 (line 1): one of run, exec, milter is needed" in done.stderr

    def test_other_options_are_refused_as_before(self, write):
        done = command("check", write(TWO), "--zone", "x")
        assert done.returncode == 1
        assert "a chain takes no options" in done.stderr


def test_a_broken_file_is_told_by_run(write):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-m", "greenfilter", "run", write("[[filter]]\n")],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
        )
    assert done.returncode != 0
    assert "filter 1 (line 1): one of run, exec, milter is needed" in done.stderr
