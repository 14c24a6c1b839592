"""Members that are other programs: fed and judged as by smtpd, and contained."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from greenfilter import Chain, Filter, reject, rewrite
from greenfilter._chain.program import Program
from greenfilter.errors import UsageError
from greenfilter.testing import FakeSmtpd, OracleError

from ..conftest import unavailable
from ..supervisor.conftest import until
from ..testing.driving import tap
from .driving import TEMPFAIL, answers, asking, greeted, in_transaction

DATA = b"Subject: hello\r\n\r\none\r\n.two\r\n"
POLICY = reject(455, "policy")


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr("greenfilter._chain.child._FIRST_DELAY", 0.01)


def program(deadline=30.0, on_error=POLICY, **spec) -> Program:
    """A program without any library, scripted by ``spec`` (tests/testing/filters/tap.py)."""
    return Program(shlex.join(tap(**spec)), deadline=deadline, on_error=on_error)


def recorder(folder: Path, *events: str) -> tuple[str, Path]:
    """A program that appends the lines that it gets to a file, and the file."""
    script, log = folder / "recorder.py", folder / "log"
    log.touch()
    script.write_text(
        "import os, sys\n"
        f"for event in {events!r}:\n    print(f'register|report|smtp-in|{{event}}')\n"
        "print('register|ready', flush=True)\n"
        f"with open({str(log)!r}, 'a') as log:\n"
        "    for line in sys.stdin:\n        log.write(line)\n        log.flush()\n"
    )
    return shlex.join([sys.executable, str(script)]), log


def chain(*apps: Filter) -> Chain:
    made = Chain("mx")
    for app in apps:
        made.add(app)
    return made


class TestHooks:
    def test_are_those_that_the_program_registers(self):
        app = program(register=["filter|smtp-in|ehlo", "report|smtp-in|link-tls"])
        with FakeSmtpd(chain(app)) as smtpd:
            assert {name for kind, _, name in smtpd.registered if kind == "filter"} == {"ehlo"}
            assert ("report", "smtp-in", "link-tls") in smtpd.registered
        assert app.child.pid is not None

    def test_of_other_members_stay(self):
        asked = []
        first = asking("noop", lambda ctx, value: asked.append("noop"))
        with FakeSmtpd(chain(first, program(register=["filter|smtp-in|ehlo"]))) as smtpd:
            greeted(smtpd).noop()
        assert asked == ["noop"]


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7"])
def test_each_version_of_the_protocol_passes_both_ways(version):
    spec = {"swapped": version == "0.4", "answers": {"rcpt-to": ["rewrite|<carol@example.org>"]}}
    app = program(**spec)
    with FakeSmtpd(chain(app), version=version, received=False) as smtpd:
        session = in_transaction(smtpd)
        reply = session.data(DATA)
        assert reply.ok
        assert reply.message == DATA
        assert smtpd.messages[0].rcpt_to == ("carol@example.org",)
        assert session.quit().ok


def test_a_program_may_be_spoken_to_in_another_version(tmp_path):
    command, log = recorder(tmp_path, "tx-mail")
    app = Program(command, protocol=(0, 5))
    with FakeSmtpd(chain(app), version="0.7") as smtpd:
        in_transaction(smtpd)
        until(lambda: "tx-mail" in log.read_text(), "the report")
    (told,) = [line for line in log.read_text().splitlines() if "|tx-mail|" in line]
    assert told.startswith("report|0.5|")
    assert told.endswith("|alice@example.net|ok")
    assert "config|protocol" not in log.read_text()


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ("proceed", "proceed"),
        ("junk", "junk"),
        ("reject|550 no", "reject|550 no"),
        ("disconnect|421 bye", "disconnect|421 bye"),
        ("rewrite|<x@example.net>", "rewrite|<x@example.net>"),
    ],
)
def test_each_decision_passes(answer, sent):
    with FakeSmtpd(chain(program(answers={"mail-from": [answer]}))) as smtpd:
        greeted(smtpd).mail_from("alice@example.net")
        assert answers(smtpd, "mail-from") == [sent]


def test_that_it_lets_pass_is_no_decision_to_log(caplog):
    caplog.set_level("INFO")
    with FakeSmtpd(chain(program())) as smtpd:
        assert in_transaction(smtpd).data(DATA).ok
    assert [record for record in caplog.records if "proceed" in record.getMessage()] == []


def test_it_is_asked_about_what_earlier_members_have_rewritten(tmp_path):
    seen = tmp_path / "seen"
    script = tmp_path / "see.py"
    script.write_text(
        "import os, sys\n"
        "print('register|filter|smtp-in|mail-from\\nregister|ready', flush=True)\n"
        f"log = open({str(seen)!r}, 'w')\n"
        "for line in sys.stdin:\n"
        "    words = line.rstrip('\\n').split('|', 7)\n"
        "    if words[0] == 'filter':\n"
        "        print(words[7], file=log, flush=True)\n"
        "        print(f'filter-result|{words[5]}|{words[6]}|proceed', flush=True)\n"
    )
    made = Chain("mx").add(asking("mail_from", lambda ctx, value: rewrite("new@example.net")))
    made.add_program(f"{sys.executable} {script}")
    with FakeSmtpd(made) as smtpd:
        assert greeted(smtpd).mail_from("alice@example.net").ok
    assert seen.read_text() == "new@example.net\n"


class TestMisbehaviour:
    """What kills smtpd ends the program; its policy answers, and it is started again."""

    @pytest.mark.parametrize(
        "answer",
        [
            "nonsense|x",
            "reject",
            "proceed|x",
            "proceed\r",
            "print hello world",
            "!",
            "!filter-result|%S|0123456789abcdef|proceed",
            "!filter-dataline|%S|%T|x",
            "!register|filter|smtp-in|vrfy",
            "!report|1.000001|smtp-in|%S|hi",
            "exit 0",
            "exit 3",
        ],
    )
    def test_of_what_would_end_smtpd(self, answer, caplog):
        app = program(answers={"noop": [answer]})
        with FakeSmtpd(chain(app)) as smtpd:
            pid = app.child.pid
            session = in_transaction(smtpd)
            assert session.noop().lines == ("455 policy",)
            until(lambda: app.child.pid not in (None, pid), "the next life of the program")
            assert session.data(DATA).ok
            assert in_transaction(smtpd).data(DATA).ok
        assert "it is started again in" in caplog.text

    @pytest.mark.parametrize("answer", ["reject|250 ok", "!filter-result|%T|%S|proceed"])
    def test_that_would_cut_a_client_or_hang_it_is_answered_by_the_policy(self, answer):
        app = program(deadline=0.5, answers={"mail-from": [answer]})
        with FakeSmtpd(chain(app)) as smtpd:
            session = greeted(smtpd)
            assert session.mail_from("alice@example.net").lines == ("455 policy",)

    @pytest.mark.parametrize("mode", ["after-dot", "unstuffed", "result"])
    def test_in_a_message(self, mode):
        app = program(data=mode)
        with FakeSmtpd(chain(app), received=False) as smtpd:
            reply = in_transaction(smtpd).data(b"one\n.\ntwo\n")
            assert reply.lines in (("455 policy",), (TEMPFAIL,)) or reply.message is not None

    def test_that_lets_a_message_pass_hands_on_what_it_got(self):
        app = program(data="result", on_error="proceed")
        with FakeSmtpd(chain(app), received=False) as smtpd:
            assert in_transaction(smtpd).data(DATA).message == DATA

    def test_a_line_too_many_ends_it(self, caplog):
        answer = "!filter-result|%S|%T|proceed\nfilter-result|%S|%T|proceed"
        app = program(answers={"ehlo": [answer]})
        with FakeSmtpd(chain(app)) as smtpd:
            pid = app.child.pid
            assert smtpd.connect().ehlo("x.example").ok
            until(lambda: app.child.pid != pid, "the end of the program")
        assert "nothing is asked" in caplog.text

    def test_one_that_is_late_is_answered_by_its_policy_and_what_it_says_later_is_dropped(self):
        app = program(deadline=0.3, answers={"mail-from": ["none"]})
        with FakeSmtpd(chain(app)) as smtpd:
            pid = app.child.pid
            session = greeted(smtpd)
            assert session.mail_from("alice@example.net").lines == ("455 policy",)
            assert session.mail_from("alice@example.net").ok
            assert app.child.pid == pid

    def test_a_message_that_never_ends_is_refused_at_the_deadline(self):
        app = program(deadline=0.3, data="without-dot")
        with FakeSmtpd(chain(app)) as smtpd:
            assert in_transaction(smtpd).data(DATA).code in (451, 455)

    def test_other_members_do_not_notice(self):
        asked = []
        made = Chain("mx").add(program(answers={"mail-from": ["exit 1"]}, on_error="proceed"))
        made.add(asking("mail_from", lambda ctx, value: asked.append(value)))
        with FakeSmtpd(made) as smtpd:
            assert greeted(smtpd).mail_from("alice@example.net").ok
        assert asked == ["alice@example.net"]

    def test_requests_while_it_does_not_run_are_answered_by_its_policy(self):
        app = program(answers={"mail-from": ["exit 1"]})
        with FakeSmtpd(chain(app)) as smtpd:
            session = greeted(smtpd)
            for _ in range(2):
                assert session.mail_from("alice@example.net").lines == ("455 policy",)

    def test_the_next_life_is_told_of_the_sessions_under_way(self, tmp_path):
        command, log = recorder(tmp_path, "link-connect", "tx-mail")
        app = Program(command)
        with FakeSmtpd(chain(app)) as smtpd:
            session = in_transaction(smtpd)
            until(lambda: "tx-mail" in log.read_text(), "the report")
            pid = app.child.pid
            os.kill(pid, signal.SIGKILL)
            until(lambda: app.child.pid not in (None, pid), "the next life")
            until(lambda: log.read_text().count("|tx-mail|") == 2, "the report")
            assert log.read_text().count(f"link-connect|{session.id}") == 2


class TestStart:
    @pytest.mark.parametrize(
        "spec",
        [
            {"register": ["filter|smtp-in|vrfy"]},
            {"register": ["filter|smtp-out|connect"]},
            {"register": ["report|smtp-in|link-foo"]},
        ],
    )
    def test_a_chain_does_not_start_without_a_registration_that_smtpd_would_take(
        self, spec, caplog
    ):
        with pytest.raises(OracleError), FakeSmtpd(chain(program(**spec)), timeout=3):
            pass
        assert "cannot start" in caplog.text

    def test_nor_with_a_program_that_ends(self, caplog):
        app = Program("/bin/true")
        with pytest.raises(OracleError), FakeSmtpd(chain(app), timeout=3):
            pass
        assert "cannot start: true: it ended, status 0" in caplog.text

    @pytest.mark.parametrize(
        ("command", "text"),
        [
            ("", "the command is empty"),
            ("'half", "is not a valid command"),
            ("/nonexistent/filter -x", "/nonexistent/filter: no such program"),
            ("filter-nonexistent", "give its whole path"),
            ("/etc/passwd", "/etc/passwd: not executable"),
        ],
    )
    def test_a_command_that_cannot_run_is_an_error_when_the_chain_is_made(self, command, text):
        with pytest.raises(UsageError, match=re.escape(text)):
            Chain("mx").add_program(command)

    def test_its_standard_error_is_in_the_log_with_its_name(self, caplog):
        app = program()
        with FakeSmtpd(chain(app)):
            until(lambda: f"{app.name}: registered" in caplog.text, "the log line")

    def test_it_ends_with_the_chain(self):
        app = program()
        with FakeSmtpd(chain(app)):
            pid = app.child.pid
        until(lambda: not _runs(pid), "the end of the program")

    def test_one_that_ignores_the_end_of_file_is_killed(self, tmp_path):
        script = tmp_path / "stay.sh"
        script.write_text("#!/bin/sh\necho 'register|ready'\nexec sleep 600\n")
        script.chmod(0o755)
        app = Program(str(script))
        with FakeSmtpd(chain(app)):
            pid = app.child.pid
        until(lambda: not _runs(pid), "the end of the program")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_many_messages_at_once_are_kept_apart():
    app = program()
    with FakeSmtpd(chain(app), received=False) as smtpd:
        sessions = [in_transaction(smtpd) for _ in range(20)]
        bodies = [b"session %d\r\n" % n * 500 for n in range(20)]
        pending = [
            smtpd.start(session.data, body) for session, body in zip(sessions, bodies, strict=True)
        ]
        assert [each.get(timeout=20).message for each in pending] == bodies


class TestRealPrograms:
    """Debian's."""

    def test_filter_dkimsign_signs(self, tmp_path):
        key = tmp_path / "key.pem"
        subprocess.run(
            ["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True
        )
        key.chmod(0o644)
        tmp_path.chmod(0o755)
        made = Chain("mx").add_program(
            f"{_installed('filter-dkimsign')} -d example.org -s k1 -k {key}"
        )
        with FakeSmtpd(made) as smtpd:
            reply = in_transaction(smtpd).data(b"From: a@example.org\r\n\r\nhello\r\n")
            assert b"DKIM-Signature:" in reply.message

    def test_filter_rspamd_without_its_daemon_is_contained(self):
        made = Chain("mx").add_program(_installed("filter-rspamd"), on_error="proceed")
        with FakeSmtpd(made) as smtpd:
            assert in_transaction(smtpd).data(DATA).code in (250, 421)

    def test_filter_senderscore_reads_and_answers(self):
        made = Chain("mx").add_program(
            f"{_installed('filter-senderscore')} -junkBelow 70", deadline=5.0, on_error="proceed"
        )
        with FakeSmtpd(made) as smtpd:
            assert in_transaction(smtpd).data(DATA).ok


def _installed(name: str) -> str:
    path = f"/usr/libexec/opensmtpd/{name}"
    if not os.access(path, os.X_OK):
        unavailable(f"{name} is not installed (Debian: opensmtpd-{name})")
    return path
