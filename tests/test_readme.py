"""The README: its filter, its tests, and every command of its tutorial."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from greenfilter import Chain, Filter, reject
from greenfilter._commands import cli
from greenfilter._filter import stock
from greenfilter.testing import FakeSmtpd
from tests.conftest import unavailable
from tests.support import smtpd as real
from tests.support.wait import wait_until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PORT = 2525  # of the tutorial
EXAMPLES = sorted(
    path.stem for path in ROOT.glob("examples/*.py") if not path.stem.startswith("demo")
)
HERE = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def blocks(kind: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def tutorial() -> list[str]:
    section = README.split("## Tutorial")[1].split("\n## ")[0]
    lines = "".join(blocks("console", section)).splitlines()
    assert all(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ") for line in lines]


def run(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        shlex.split(command), cwd=directory, env=HERE, capture_output=True, text=True, timeout=55
    )


def listens() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def test_the_first_filter_is_sixteen_lines_long_and_passes_its_check(tmp_path):
    first = blocks("python")[0]
    assert len(first.splitlines()) == 16
    (tmp_path / "guard.py").write_text(first)
    done = run("greenfilter check --strict guard.py", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "filter.connect" in done.stdout


@pytest.mark.parametrize(("answer", "code"), [("127.0.0.2", 550), ("127.255.255.254", 220)])
def test_the_first_filter_takes_no_error_for_a_listing(monkeypatch, answer, code):
    # What Spamhaus answers to resolvers that may not ask: refusing these would refuse all mail.
    names = {}
    exec(blocks("python")[0], names)
    monkeypatch.setattr(socket, "gethostbyname", lambda name: answer)
    with FakeSmtpd(names["app"]) as smtpd:
        assert smtpd.connect().reply.code == code


@pytest.mark.parametrize(
    ("src", "name"),
    [
        ("192.0.2.10:4711", "10.2.0.192.zen.spamhaus.org"),
        ("[2001:db8::10]:4711", f"{'0.1' + '.0' * 22}.8.b.d.0.1.0.0.2.zen.spamhaus.org"),
        ("unix:/var/run/smtpd.sock", None),
    ],
)
def test_the_first_filter_asks_for_clients_of_both_kinds(monkeypatch, src, name):
    names, asked = {}, []
    exec(blocks("python")[0], names)

    def not_listed(name):
        asked.append(name)
        raise socket.gaierror

    monkeypatch.setattr(socket, "gethostbyname", not_listed)
    with FakeSmtpd(names["app"]) as smtpd:
        assert smtpd.connect(src=src).reply.code == 220
    assert asked == ([name] if name else [])


def test_operations_lists_every_option_of_run_with_its_default():
    section = README.split("## Operations")[1].split("\n## ")[0]
    cells = [row.split(" | ") for row in section.splitlines() if row.startswith("| `--")]
    listed = {option.strip("| `").split()[0]: default for option, default, *_ in cells}
    command = cli.get_command(None, "run")
    options = [each for each in command.params if each.opts[0].startswith("--")]
    assert {option.replace("--no-", "--") for option in listed} == {o.opts[0] for o in options}
    for option in options:
        if option.show_default:
            default = option.default
            text = f"{default:g}" if isinstance(default, float) else str(default)
            assert listed[option.opts[0]].strip("`") == text


def test_the_examples_are_short_and_all_are_listed():
    listed = re.findall(r"^\* \[examples/(\w+)\.py\]", README, re.MULTILINE)
    assert sorted(listed) == EXAMPLES
    for name in EXAMPLES:
        assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < 60, name


def test_smtpd_reads_the_lines_of_smtpd_conf(tmp_path, require_smtpd):
    rest = 'action "mbox" mbox\nmatch from any for local action "mbox"\n'
    for name, lines in (
        ("README", README.split("In smtpd.conf")[1].split("```\n")[1]),
        *((f"example-{name}", conf_of(example(name))) for name in EXAMPLES),
        *((name, conf_of(manual(name))) for name in stock.names()),
        *((f"recipe-{number}", recipe) for number, recipe in enumerate(recipes())),
    ):
        lines = lines.replace("tls-require pki mx.example.org auth ", "")
        (tmp_path / name).write_text(lines + rest)
        done = run(f"{real.SMTPD} -n -f {name}", tmp_path)
        assert (done.returncode, done.stderr) == (0, "configuration OK\n"), lines


def recipes() -> list[str]:
    """The lines for smtpd.conf of each stock filter in the README."""
    section = README.split("## Stock filters")[1].split("\n## ")[0]
    found = re.findall(r"^```\n(# .*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(found) == len(stock.names())
    return found


def example(name: str) -> str:
    tree = ast.parse((ROOT / "examples" / f"{name}.py").read_text())
    return ast.get_docstring(tree) or ""


def manual(name: str) -> str:
    return run(f"greenfilter run {name} --help", ROOT).stdout


def conf_of(text: str) -> str:
    """The lines for smtpd.conf in a manual."""
    lines = textwrap.dedent(text.split("In smtpd.conf")[1].split("\n\n")[1])
    assert lines.startswith("filter "), lines
    return f"{lines}\n"


def test_the_message_handler_refuses_programs_and_marks_the_subject():
    app = Filter("readme")
    exec(blocks("python")[1], {"app": app, "reject": reject})
    with FakeSmtpd(app) as smtpd:
        session = smtpd.connect()
        session.ehlo("client.example.net")
        for name, code in (("setup.EXE", 554), ("notes.txt", 250)):
            message = EmailMessage()
            message["Subject"] = "hello"
            message.add_attachment(b"x", "application", "octet-stream", filename=name)
            session.mail_from("a@example.net")
            session.rcpt_to("b@example.org")
            assert session.data(message.as_bytes()).code == code
    [message] = smtpd.messages
    assert b"Subject: [outside] hello\r\n" in message.data


def test_the_c_filter_and_the_test_of_a_filter_work(tmp_path):
    port, test = blocks("python")[-2:]
    (tmp_path / "port.py").write_text(port)
    (tmp_path / "guard.py").write_text(blocks("python")[0])
    (tmp_path / "test_guard.py").write_text(test)
    for command in ("greenfilter check port.py", "python -m pytest -q test_guard.py"):
        done = run(command, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_chain_file_and_the_chain_in_python_work(tmp_path):
    (text,) = blocks("toml")
    key = tmp_path / "k1.pem"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    key.chmod(0o600)
    text = text.replace("/etc/mail/k1.pem", str(key))
    senderscore = "/usr/libexec/opensmtpd/filter-senderscore"
    if not os.access(senderscore, os.X_OK):
        unavailable("Debian: opensmtpd-filter-senderscore")
    (tmp_path / "mx.toml").write_text(text)
    done = run("greenfilter check mx.toml", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (code,) = [block for block in blocks("python") if "Chain(" in block]
    guard = SimpleNamespace(app=Filter("guard"))
    guard.app.filter.rcpt_to(lambda ctx, recipient: reject(550, "guarded"))
    names = {"guard": guard}
    exec(code, names)
    with FakeSmtpd(names["app"]) as smtpd:
        for port, code in ((25, 250), (587, 550)):
            session = smtpd.connect(src="127.0.0.1:1", dst=f"192.0.2.25:{port}")
            session.ehlo("client.example.net")
            session.mail_from("a@example.net")
            assert session.rcpt_to("b@example.org").code == code


def test_smtpds_own_filters_as_a_member_decide_as_they_do(tmp_path):
    (code,) = [block for block in blocks("python") if "match !fcrdns" in block]
    names: dict[str, Any] = {}
    exec(code, names)
    refusing = Filter("refusing")
    refusing.filter.rcpt_to(lambda ctx, recipient: reject(550, "asked"))
    with FakeSmtpd(Chain("mx").add(names["app"]).add(refusing)) as smtpd:
        assert smtpd.connect(fcrdns="fail").junk
        session = smtpd.connect(fcrdns="pass")
        assert not session.junk
        session.ehlo("client.example.net")
        session.starttls()
        session.ehlo("client.example.net")
        session.auth("bulk", "secret")
        assert session.mail_from("bob@old.example").ok
        assert session.rcpt_to("b@example.org").ok
        other = smtpd.connect()
        other.ehlo("client.example.net")
        assert other.mail_from("bob@old.example").ok
        assert other.decisions[-1] == ("mail-from", "rewrite|<bob@new.example>")
        assert other.rcpt_to("b@example.org").text == "asked"


def _path_without_ours() -> str:
    ours = Path(sys.executable).parent
    return ":".join(path for path in os.environ["PATH"].split(":") if Path(path) != ours)


class Shell:
    """Runs the commands of the tutorial one after the other, as somebody would type them."""

    def __init__(self, directory: Path, home: Path) -> None:
        self.directory = directory
        # Without the environment that the tests run in: the tutorial makes its own.
        # To compile takes minutes, and is tried by all other tests.
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "PATH": _path_without_ours(),
            "GREENFILTER_COMPILE": "0",
        }
        self.background: subprocess.Popen[str] | None = None

    def type(self, command: str) -> None:
        if command == "kill %1":
            self.stop()
        elif command.startswith(". "):
            done = subprocess.run(
                ["bash", "-c", f'{command} && echo "$PATH"'],
                cwd=self.directory,
                env=self.environment,
                capture_output=True,
                text=True,
                check=True,
            )
            self.environment["PATH"] = done.stdout.strip()
        elif command.endswith(" &"):
            self.start(command[:-2])
            wait_until(listens, 20, f"{command} to listen")
        else:
            done = self.popen(command)
            output, _ = done.communicate(timeout=200)
            assert done.returncode == 0, f"{command}\n{output}"

    def start(self, command: str) -> None:
        assert not listens(), f"port {PORT} is in use"
        self.background = self.popen(command)

    def popen(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.directory,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def stop(self) -> None:
        process, self.background = self.background, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


@pytest.fixture
def shell():
    # Not tmp_path: nobody but its owner may look into that, and smtpd runs filters as its own user.
    home = Path(tempfile.mkdtemp(prefix="readme-"))
    home.chmod(0o755)
    (home / "greenfilter").symlink_to(ROOT)
    (home / "work").mkdir()
    shell = Shell(home / "work", home)
    yield shell
    shell.stop()
    shutil.rmtree(home)


def test_a_test_of_a_filter_with_options_passes_as_it_is_written(tmp_path):
    # As the README's, with a filter that reads sys.argv when it is imported, and pytest's own -q.
    assert run("greenfilter new guard", tmp_path).returncode == 0
    (tmp_path / "test_guard.py").write_text(blocks("python")[-1])
    done = run("pytest -q --maxfail 3", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_bare_commands_are_those_of_an_activated_environment():
    assert tutorial()[:2] == ["python3 -m venv venv", ". venv/bin/activate"]
    assert "venv/bin/greenfilter" not in README


@pytest.mark.timeout(900)
def test_every_command_of_the_tutorial_works(shell, require_smtpd):
    commands = tutorial()
    *first, check, syntax, smtpd = commands
    for command in first:
        shell.type(command)
    conf = shell.directory / "guard.conf"
    # Where the tests run, smtpd's own user may not be able to read Python itself.
    conf.write_text(re.sub(r'(proc-exec ".*")', r"\1 user root", conf.read_text()))
    shell.type(check)
    shell.type(syntax)
    assert smtpd == "smtpd -d -f guard.conf"
    shell.start(in_a_world_of_its_own(smtpd))
    wait_until(listens, 20, "smtpd to listen")
    with socket.create_connection(("127.0.0.1", PORT), timeout=20) as client:
        lines = client.makefile("rw", newline="")
        assert lines.readline().startswith("220 ")
        for command, code in (("EHLO me.example", "250"), ("MAIL FROM:<a@spam.example>", "550")):
            lines.write(f"{command}\r\n")
            lines.flush()
            while (line := lines.readline())[3] == "-":
                pass
            assert line.startswith(code), line
        client.shutdown(socket.SHUT_RDWR)


def in_a_world_of_its_own(command: str) -> str:
    """As the harness of the real server does: its paths are fixed."""
    script = (
        "mount -t tmpfs -o mode=755 tmpfs /run; mount -t tmpfs -o mode=755 tmpfs /var/spool; "
        f"mkdir -m 711 /var/spool/smtpd; exec setpriv --pdeathsig TERM {command}"
    )
    assert real.missing() is None
    return f"unshare --mount --propagation private sh -ec {shlex.quote(script)}"
