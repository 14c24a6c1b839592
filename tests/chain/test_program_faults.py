"""What programs do to the worker that they belong to: bounded, and noticed."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from greenfilter import Chain
from greenfilter._chain.program import Program
from greenfilter.testing import FakeSmtpd

from ..conftest import children
from ..supervisor.conftest import until
from .driving import chain, in_transaction, logged

# Answers what it is asked; BEFORE runs first, WRITE for each line of a message.
SCRIPT = """
import os, sys
os.set_blocking(0, True)
os.set_blocking(1, True)
with open(sys.argv[1], "a") as runs:
    runs.write("x")
RUN = os.path.getsize(sys.argv[1])
print("register|report|smtp-in|link-disconnect")
for phase in ("ehlo", "data-line"):
    print(f"register|filter|smtp-in|{{phase}}")
print("register|ready", flush=True)
{before}
for line in sys.stdin:
    words = line.rstrip("\\n").split("|", 7)
    if words[0] != "filter":
        continue
    first, second = (words[5:7] if words[1] >= "0.5" else words[6:4:-1])
    if words[4] == "data-line":
        out = [f"filter-dataline|{{first}}|{{second}}|" + words[7]]
        {write}
        print(*out, sep="\\n", flush=True)
    else:
        print(f"filter-result|{{first}}|{{second}}|reject|550 run {{RUN}}", flush=True)
"""


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr("greenfilter._chain.child._FIRST_DELAY", 0.01)
    monkeypatch.setattr("greenfilter._chain.child._LONGEST_DELAY", 0.02)
    before = children()
    yield
    until(lambda: children() <= before, "what was ended last")


@pytest.fixture
def program(tmp_path: Path):
    """Make a member of the script."""

    def make(before: str = "", write: str = "", **options) -> Program:
        path = tmp_path / "program.py"
        path.write_text(SCRIPT.format(before=before, write=write or "pass"))
        words = [sys.executable, str(path), str(tmp_path / "runs")]
        return Program(shlex.join(words), **options)

    return make


def end(app: Program) -> None:
    assert app.child is not None
    os.kill(app.child.pid, signal.SIGKILL)


def test_one_that_ends_as_soon_as_it_is_ready_is_started_until_it_stays(program):
    app = program("if 1 < RUN < 5: sys.exit(3)", deadline=5.0)
    with FakeSmtpd(chain(app)) as smtpd:
        end(app)
        until(lambda: smtpd.connect().ehlo("x").lines == ("550 run 5",), "the fifth")


def test_restarts_leave_nothing_open(program):
    app = program("if RUN > 1: sys.exit(3)")
    with FakeSmtpd(chain(app)):
        before = len(os.listdir("/proc/self/fd"))
        end(app)
        runs = Path(shlex.split(app.command)[-1])
        until(lambda: runs.stat().st_size > 12, "a dozen of starts")
        until(lambda: len(os.listdir("/proc/self/fd")) <= before + 6, "closed files")


def test_a_log_without_line_ends_is_logged_in_pieces(program, caplog):
    app = program("sys.stderr.write('e' * 100_000 + 'END\\n')")
    with FakeSmtpd(chain(app)):
        until(lambda: any(text.endswith("END") for text in logged(caplog)), "its log")
    sizes = [len(text) for text in logged(caplog) if "eee" in text]
    assert max(sizes) < 5000
    assert sum(sizes) > 100_000


@pytest.mark.parametrize("version", ["0.6", "0.7"])
def test_a_long_line_passes_whole_or_the_message_is_refused(program, version):
    line = b"a" * 3000
    app = program(protocol=(0, 6))
    made = Chain("mx").add(app, when={"senders": ["alice@example.net"]})
    with FakeSmtpd(made, version=version) as smtpd:
        session = in_transaction(smtpd)
        reply = session.data(b"Subject: x\r\n\r\n" + line + b"\r\n")
    if reply.ok:
        assert line in smtpd.messages[0].data
    else:
        assert not smtpd.messages
    assert reply.ok or version == "0.6"


def test_what_it_writes_for_one_message_is_bounded(program):
    app = program(write="out *= 20_000", deadline=20.0)
    made = Chain("mx", max_message_bytes=1 << 20).add(app, when={"senders": ["alice@example.net"]})
    with FakeSmtpd(made) as smtpd:
        reply = in_transaction(smtpd).data(b"Subject: " + b"x" * 100 + b"\r\n\r\none\r\n")
        assert reply.code in (451, 552, 554)
        assert not smtpd.messages
