"""The command line, as smtpd and as a person in a terminal use it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from greenfilter import __version__
from tests.protocol.driver import SID, TOKEN, report, request
from tests.support.smtpd import SMTPD

GREENFILTER = [sys.executable, "-m", "greenfilter"]
MODULE = " ".join(GREENFILTER)
COMMAND = os.path.join(sysconfig.get_path("scripts"), "greenfilter")
HANDSHAKE = (
    b"config|smtpd-version|7.8.0\nconfig|protocol|0.7\nconfig|subsystem|smtp-in\nconfig|ready\n"
)
RESULT = b"filter-result|%b|%b|" % (SID, TOKEN)
MODES = pytest.mark.parametrize("mode", ["--no-supervisor", "--supervisor"])

GOOD = """
    import os, subprocess, sys
    from greenfilter import Filter, reject

    app = Filter("good")

    @app.filter.ehlo
    def ehlo(ctx, identity):
        return reject(550, repr(sys.argv))
"""


class Smtpd:
    """A filter process and the socket that is its fd 0 and fd 1, as smtpd makes it."""

    def __init__(self, command: list[str], **options: object) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(30)
        self._read = b""
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, **options
            )

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def lines(self, last: bytes) -> list[bytes]:
        """Everything the filter writes up to a line that begins so."""
        found: list[bytes] = []
        while not (found and found[-1].startswith(last)):
            while b"\n" not in self._read:
                data = self._socket.recv(65536)
                assert data, f"the filter has ended: {self.errors()}"
                self._read += data
            line, _, self._read = self._read.partition(b"\n")
            found.append(line)
        return found

    def start(self) -> list[bytes]:
        """Do the handshake; return what was registered."""
        self.send(HANDSHAKE)
        return self.lines(b"register|ready")

    def ask(self, *lines: bytes) -> bytes:
        """Send lines whose last is a request; return all that comes up to its answer."""
        self.send(b"".join(lines))
        return b"\n".join(self.lines(b"filter-result|"))

    def errors(self) -> str:
        """Close, and return all that went to stderr."""
        self._socket.close()
        _, errors = self.process.communicate(timeout=30)
        return errors.decode()

    def end(self) -> tuple[int, str]:
        """Stop it as smtpd does: nothing more is written, it exits by itself."""
        self._socket.shutdown(socket.SHUT_WR)
        rest = self._read
        while data := self._socket.recv(65536):
            rest += data
        assert rest == b""
        errors = self.errors()
        return self.process.returncode, errors


@pytest.fixture
def smtpd(tmp_path) -> Iterator[Callable[..., Smtpd]]:
    """Start filters in a directory of their own."""
    started: list[Smtpd] = []

    def start(command: list[str], **options: object) -> Smtpd:
        started.append(Smtpd(command, cwd=tmp_path, **options))
        return started[-1]

    yield start
    for one in started:
        if not one.process.stderr.closed:
            one.errors()


@pytest.fixture
def write(tmp_path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    return write


def call(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, and wait for its end."""
    return subprocess.run(
        [*GREENFILTER, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        **options,
    )


# run: what is wrong with the filter

BROKEN = {
    "missing": (None, "no such file"),
    "syntax": ("x = (\n", "1: '(' was never closed"),
    "no-filter": ("x = 1\n", "no Filter in it"),
    "two-filters": (
        "from greenfilter import Filter\na = Filter('a')\nb = Filter('b')\n",
        "more than one Filter (a, b); name one: ",
    ),
    "registers-nothing": (
        "from greenfilter import Filter\napp = Filter('x')\n",
        "has no handler; decorate one, as in @app.filter.ehlo",
    ),
    "import-error": ("import not_installed\n", "1: No module named 'not_installed'"),
    "exception": ("x = 1\n\nx = 1 / 0\n", "3: ZeroDivisionError: division by zero"),
    "lines": ("raise ValueError('two\\nlines')\n", "1: ValueError: two lines"),
    "misuse": (
        "from greenfilter import Filter\napp = Filter('x')\napp.filter.ehlow\n",
        "3: app.filter.ehlow does not exist",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@MODES
def test_run_says_in_one_line_what_is_wrong_and_exits_2(name, mode, smtpd, write):
    text, problem = BROKEN[name]
    if text is not None:
        write(f"{name}.py", text)
    run = smtpd([*GREENFILTER, "run", mode, f"{name}.py"])
    assert run.process.wait(timeout=30) == 2
    errors = run.errors()
    (line,) = [line for line in errors.splitlines() if problem in line]
    assert line.startswith("greenfilter: ")
    assert f"{name}.py" in line
    assert "Traceback" not in errors


@pytest.mark.parametrize("name", BROKEN)
def test_without_a_supervisor_that_line_is_all_there_is(name, smtpd, write):
    text, _ = BROKEN[name]
    if text is not None:
        write(f"{name}.py", text)
    assert smtpd([*GREENFILTER, "run", "--no-supervisor", f"{name}.py"]).errors().count("\n") == 1


@pytest.mark.parametrize("name", BROKEN)
def test_check_says_the_same_and_exits_1(name, write, tmp_path):
    text, problem = BROKEN[name]
    if text is not None:
        write(f"{name}.py", text)
    done = call("check", f"{name}.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("greenfilter: ")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [([], "Missing argument 'FILTER'"), (["--lgo-level", "x.py"], "No such option")],
)
def test_a_command_that_is_not_understood_shows_its_usage(command, arguments, problem):
    done = call(command, *arguments)
    assert done.returncode == 2
    assert f"Usage: python -m greenfilter {command}" in done.stderr
    assert problem in done.stderr


@MODES
@pytest.mark.parametrize("stdin", ["/dev/null", "file"])
def test_run_without_smtpd_says_who_starts_it(mode, stdin, write, tmp_path):
    path = write("guard.py", GOOD)
    write("file", "config|ready\n")
    with open(tmp_path / stdin) as source:
        done = subprocess.run(
            [*GREENFILTER, "run", mode, str(path)], stdin=source, capture_output=True, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("greenfilter: smtpd starts this")
    assert f"greenfilter check {path}" in done.stderr
    assert done.stderr.count("\n") == 1


# run: how a filter is named


@MODES
def test_run_serves_until_smtpd_closes_and_exits_0(mode, smtpd, write):
    run = smtpd([*GREENFILTER, "run", mode, str(write("guard.py", GOOD))])
    registered = run.start()
    assert b"register|filter|smtp-in|ehlo" in registered
    assert b"register|report|smtp-in|link-disconnect" in registered
    assert run.ask(request("ehlo", b"x")).startswith(RESULT + b"reject|550 ")
    run.send(report("link-disconnect"))
    assert run.end() == (0, "")


@pytest.mark.parametrize("target", ["guard.py:app", "./guard.py", "package.module:app"])
def test_a_filter_may_be_named_by_file_name_or_module(target, smtpd, write, tmp_path):
    write("guard.py", GOOD + "    other = Filter('other')\n" * target.endswith("py:app"))
    write("package/__init__.py", "")
    write("package/module.py", GOOD)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = smtpd([*GREENFILTER, "run", "--no-supervisor", target], env=environment)
    run.start()
    assert f"['{target}']".encode() in run.ask(request("ehlo", b"x"))


@MODES
@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["--zone", "a b", "-v"], ["--zone", "a b", "-v"]),
        (["--", "--log-level", "x"], ["--log-level", "x"]),
        (["--help"], ["--help"]),
        (["word", "--", "x"], ["word", "--", "x"]),
    ],
)
def test_options_after_the_filter_are_the_filters_own(mode, given, found, smtpd, write):
    write("guard.py", GOOD)
    run = smtpd([*GREENFILTER, "run", mode, "guard.py", *given])
    run.start()
    assert repr(["guard.py", *found]).encode() in run.ask(request("ehlo", b"x"))


def test_a_filter_file_can_be_a_program(smtpd, write):
    path = write("guard", "#!/usr/bin/env -S greenfilter run\n" + textwrap.dedent(GOOD))
    path.chmod(0o755)
    paths = os.pathsep.join([os.path.dirname(COMMAND), os.environ["PATH"]])
    run = smtpd([str(path), "--option"], env={**os.environ, "PATH": paths})
    run.start()
    assert repr([str(path), "--option"]).encode() in run.ask(request("ehlo", b"x"))
    assert run.end() == (0, "")


def test_a_script_can_run_itself(smtpd, write):
    path = write("guard.py", GOOD + "    if __name__ == '__main__':\n        app.run()\n")
    run = smtpd([sys.executable, "guard.py", "--option"])
    run.start()
    assert repr([str(path), "--option"]).encode() in run.ask(request("ehlo", b"x"))
    assert run.end() == (0, "")


def checked(*arguments: object) -> str:
    """What ``check`` says of a good filter."""
    done = call("check", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_installed_command_is_the_module(write):
    path = write("guard.py", GOOD)
    by_command = subprocess.run([COMMAND, "check", str(path)], capture_output=True, text=True)
    assert by_command.returncode == 0
    assert by_command.stdout.replace(COMMAND, MODULE) == checked(path).replace(COMMAND, MODULE)


# run: what a filter prints stays away from smtpd

_NOISE = """
    print("printed at import")
    os.write(1, b"written at import\\n")
    subprocess.run(["echo", "child at import"])

    @app.filter.helo
    def helo(ctx, identity):
        print("printed", flush=True)
        os.write(1, b"written\\n")
        sys.__stdout__.write("original\\n")
        sys.__stdout__.flush()
        os.system("echo shell")
        subprocess.run(["echo", "child"])
        subprocess.run("cat; cat <&0; echo tried", shell=True)
"""


@MODES
def test_what_the_filter_and_its_children_print_goes_to_stderr(mode, smtpd, write):
    run = smtpd([*GREENFILTER, "run", mode, str(write("guard.py", GOOD + _NOISE))])
    assert all(line.startswith(b"register|") for line in run.start())
    assert run.ask(request("helo", b"x")) == RESULT + b"proceed"
    status, errors = run.end()
    assert status == 0
    for text in ("printed at import", "written at import", "child at import"):
        assert text in errors
    for text in ("printed", "written", "original", "shell", "child", "tried"):
        assert f"{text}\n" in errors


@MODES
def test_children_that_stay_do_not_hold_smtpds_socket(mode, smtpd, write):
    text = GOOD + "    child = subprocess.Popen(['sleep', '600'], stderr=subprocess.DEVNULL)\n"
    text += "    app.filter.helo(lambda ctx, identity: reject(550, str(child.pid)))\n"
    run = smtpd([*GREENFILTER, "run", mode, str(write("guard.py", text))])
    run.start()
    pid = int(run.ask(request("helo", b"x")).rpartition(b" ")[2])
    try:
        open_files = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        assert not any(name.startswith("socket:") for name in open_files)
    finally:
        os.kill(pid, 9)


# run: logs and versions


@MODES
@pytest.mark.parametrize("version", ["0.9", "1.0", "x"])
def test_an_unknown_protocol_version_is_warned_of_and_served(mode, version, smtpd, write):
    run = smtpd([*GREENFILTER, "run", mode, str(write("guard.py", GOOD))])
    run.start()
    assert run.ask(request("ehlo", b"x", version=version)).startswith(RESULT + b"reject|550 ")
    status, errors = run.end()
    assert status == 0
    assert f"protocol {version} is not one of 0.4 to 0.7; continuing as well as possible" in errors
    assert "Traceback" not in errors


def test_lines_that_make_no_sense_are_told_in_the_log(smtpd, write):
    run = smtpd([*GREENFILTER, "run", "--no-supervisor", str(write("guard.py", GOOD))])
    run.start()
    run.ask(b"nonsense\n", request("ehlo", b"x"))
    _, errors = run.end()
    assert "nonsense" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--log-level", "error"], ""),
        (["--log-level", "warning"], f"warning: {SID.decode()}: from the filter\n"),
        ([], f"warning: {SID.decode()}: from the filter\n"),
    ],
)
def test_the_level_of_the_log_is_an_option(options, expected, smtpd, write):
    text = GOOD + "    app.filter.helo(lambda ctx, identity: ctx.log.warning('from the filter'))\n"
    run = smtpd([*GREENFILTER, "run", *options, "--no-supervisor", str(write("guard.py", text))])
    run.start()
    run.ask(request("helo", b"x"))
    assert run.end() == (0, expected)


def test_the_log_can_be_json(smtpd, write):
    import json

    text = GOOD + "    app.filter.helo(lambda ctx, identity: ctx.log.warning('two\\nlines'))\n"
    command = [*GREENFILTER, "run", "--no-supervisor", "--log-format", "json"]
    run = smtpd([*command, str(write("guard.py", text))])
    run.start()
    run.ask(request("helo", b"x"))
    record = json.loads(run.end()[1])
    assert (record["level"], record["session"]) == ("warning", SID.decode())
    assert record["text"] == "two lines"


# check


def test_check_lists_hooks_needs_and_the_lines_for_smtpd_conf(write):
    text = """
        from greenfilter import Filter, Need

        app = Filter("my guard", needs=Need.RDNS | Need.SRC)

        @app.filter.connect(deadline=5.0, on_error="proceed", thread=True)
        def blocklist(ctx, rdns, address): ...

        @app.report.tx_commit(outgoing=True)
        def count(ctx, message_id, size): ...
    """
    path = write("guard.py", text)
    # smtpd looks for a bare name in its own directory, so the command is named in full.
    output = checked(path, "--zone", "example.org").replace(f"{COMMAND} run", f"{MODULE} run")
    lines = [" ".join(line.split()) for line in output.splitlines()]
    # smtpd's user may not get to the Python of the tests, which is told in a comment.
    assert [line for line in lines if not line.startswith("# ")] == [
        f"my guard: {path}",
        f"filter.connect blocklist ({path}:5) deadline=5, on_error=proceed(), thread",
        f"report.tx_commit count ({path}:8) deadline=30, outgoing",
        "needs: src, rdns",
        "smtpd.conf:",
        f'filter "my-guard" proc-exec "{MODULE} run {path} --zone example.org"',
        'listen on 0.0.0.0 filter "my-guard"',
        'action "outbound" relay filter "my-guard"',
    ]


@pytest.mark.parametrize("name", ["guard", "junk", "2024", "my guard"])
def test_smtpd_accepts_the_lines_that_check_prints(write, tmp_path, require_smtpd, name):
    text = f"""
        from greenfilter import Filter

        app = Filter({name!r})

        @app.report.tx_commit
        def count(ctx, message_id, size): ...

        @app.report.tx_commit(outgoing=True)
        def relayed(ctx, message_id, size): ...
    """
    lines = checked(write("guard.py", text)).split("smtpd.conf:\n")[1]
    conf = tmp_path / "smtpd.conf"
    conf.write_text(f'{lines}match from any for any action "outbound"\n')
    done = subprocess.run([SMTPD, "-n", "-f", conf], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "configuration OK\n"), lines


def test_check_gives_the_filter_its_options(write):
    path = write("guard.py", GOOD + "    app.name = sys.argv[1]\n")
    assert call("check", path, "named").stdout.startswith("named: ")


# The rest


def test_version_and_help():
    assert call("--version").stdout.startswith(f"greenfilter {__version__} (")
    for arguments in (["--help"], ["-h"], ["run", "--help"], ["check", "--help"]):
        done = call(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "FILTER" in done.stdout


def test_an_unknown_command_is_refused():
    done = call("nonsense")
    assert done.returncode == 2
    assert "No such command" in done.stderr
