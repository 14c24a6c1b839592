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

# Answers what it is asked, with PHASES; BEFORE runs first, IDS at each request, WRITE for each line
# of a message.
SCRIPT = """
import os, sys
os.set_blocking(1, True)
with open(sys.argv[1], "a") as runs:
    runs.write("x")
RUN = os.path.getsize(sys.argv[1])
print("register|report|smtp-in|link-disconnect")
for phase in {phases}:
    print(f"register|filter|smtp-in|{{phase}}")
print("register|ready", flush=True)
{before}
for line in sys.stdin:
    words = line.rstrip("\\n").split("|", 7)
    if words[0] != "filter":
        continue
    first, second = (words[5:7] if words[1] >= "0.5" else words[6:4:-1])
    {ids}
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

    def make(
        before: str = "",
        write: str = "pass",
        ids: str = "",
        phases: str = "('ehlo', 'data-line')",
        **options,
    ) -> Program:
        path = tmp_path / "program.py"
        path.write_text(SCRIPT.format(before=before, write=write, ids=ids, phases=phases))
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


def test_it_may_spell_ids_as_any_numbers_as_smtpd_reads_them(program):
    app = program(ids="first, second = first.upper(), second.lstrip('0').upper()", deadline=5.0)
    with FakeSmtpd(Chain("mx").add(app, when={"senders": ["alice@example.net"]})) as smtpd:
        for _ in range(20):
            assert in_transaction(smtpd).data(b"x: y\r\n").ok


def test_an_answer_that_is_late_is_known_however_its_ids_are_spelled(program):
    pause = "import time; time.sleep(1.2 if words[4] == 'ehlo' else 0)"
    app = program(
        ids=f"{pause}; second = second.lstrip('0')",
        phases="('ehlo', 'noop')",
        deadline=1.0,
        on_error="proceed",
    )
    with FakeSmtpd(chain(app)) as smtpd:
        pid = app.child.pid
        session = smtpd.connect()
        assert session.ehlo("a.example").ok
        assert session.noop().lines == ("550 run 1",)
        assert app.child.pid == pid


def test_one_whose_child_keeps_its_socket_open_is_seen_to_have_ended(program):
    leave = "subprocess.Popen(['sleep', '20']) and sys.exit(0)"
    child = f"import subprocess\nif RUN == 1: {leave}"
    app = program(child, deadline=0.2, on_error="proceed")
    with FakeSmtpd(chain(app)) as smtpd:
        until(lambda: smtpd.connect().ehlo("x").lines == ("550 run 2",), "the second")


def test_what_it_registers_late_is_told_once_and_no_reason_to_end_it(program, caplog):
    late = "print('register|filter|smtp-in|noop\\n' * 2 + 'register|report|smtp-in|tx-mail')"
    app = program(late)
    with FakeSmtpd(chain(app)) as smtpd:
        assert smtpd.connect().ehlo("x").lines == ("550 run 1",)
    assert [text.partition(": ")[2] for text in logged(caplog) if "too late" in text] == [
        "register|filter|smtp-in|noop comes after its register|ready, too late",
        "register|report|smtp-in|tx-mail comes after its register|ready, too late",
    ]


def test_one_that_has_other_phases_when_it_is_started_again_is_not_taken(program, caplog):
    app = program(phases="('ehlo', 'noop') if RUN == 2 else ('ehlo', 'data-line')", deadline=5.0)
    with FakeSmtpd(chain(app)) as smtpd:
        end(app)
        until(lambda: smtpd.connect().ehlo("x").lines == ("550 run 3",), "the third")
    assert "it has not registered the same phases as before" in caplog.text


def test_one_that_cannot_be_told_all_of_a_transaction_is_not_asked_in_it(program, monkeypatch):
    monkeypatch.setattr("greenfilter._chain.child_session._MAX_HISTORY", 4)
    app = program()
    with FakeSmtpd(Chain("mx").add(app, when={"senders": ["alice@example.net"]})) as smtpd:
        session = in_transaction(smtpd)
        assert session.rcpt_to("carol@example.org").ok
        pid = app.child.pid
        end(app)
        until(lambda: app.child.pid not in (None, pid), "the next life")
        assert session.data(b"x: y\r\n").code == 451
        assert session.mail_from("alice@example.net").ok
        assert session.rcpt_to("bob@example.org").ok
        assert session.data(b"x: y\r\n").ok


@pytest.mark.parametrize("on_error", ["tempfail", "proceed"])
@pytest.mark.parametrize("sent", [0, 5])
def test_one_that_dies_in_the_middle_of_a_message_shortens_none(program, on_error, sent):
    app = program(deadline=5.0, on_error=on_error)
    with FakeSmtpd(Chain("mx").add(app, when={"senders": ["alice@example.net"]})) as smtpd:
        session = in_transaction(smtpd)
        session.data_begin()
        lines = [b"x: %d" % number for number in range(10)]
        session.data_lines(lines[:sent])
        smtpd.settle()
        end(app)
        session.data_lines(lines[sent:])
        reply = session.data_end()
        if reply.ok:
            assert smtpd.messages[0].data.endswith(b"".join(line + b"\r\n" for line in lines))
        assert reply.ok if on_error == "proceed" else reply.code == 451


@pytest.mark.parametrize("byte", ["\\0", "\\r"])
def test_a_byte_that_smtpd_would_read_wrong_shortens_no_line(program, byte):
    app = program(
        write=f"out = [line + '{byte}tail' for line in out] if words[7] == 'one' else out"
    )
    with FakeSmtpd(Chain("mx").add(app, when={"senders": ["alice@example.net"]})) as smtpd:
        reply = in_transaction(smtpd).data(b"x: y\r\n\r\none\r\n")
        if reply.ok:
            assert b"tail" in smtpd.messages[0].data
        else:
            assert reply.code in (451, 554)
