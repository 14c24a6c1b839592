"""``greenfilter replay``: the same filter decides the same, another one is told apart."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing.driving import tap
from tests.testing.recordings import TRANSCRIPTS
from tests.testing.replaying import Recorded

from .link import GREENFILTER

JUDGE = Path(__file__).parent / "filters" / "judge.py"
SID, TOKEN = "6a14acf1f252dd7b", "cc4c3b0478ec7d43"
CONFIG = ["< config|smtpd-version|7.8.0", "< config|protocol|0.7", "< config|ready"]
PHASES = ("connect", "ehlo", "auth", "mail-from", "rcpt-to", "data", "data-line", "commit")
ALL = [
    *CONFIG,
    "> register|report|smtp-in|*",
    *(f"> register|filter|smtp-in|{phase}" for phase in PHASES),
    "> register|ready",
]
CONNECT = (
    f"< report|0.7|1.5|smtp-in|link-connect|{SID}|rdns.example|pass|192.0.2.10:1|192.0.2.25:25"
)
LEAVE = f"< report|0.7|9.5|smtp-in|link-disconnect|{SID}"


def replay(target, *logs, options=(), timeout=60):
    command = [*GREENFILTER, "replay", *options, str(target), *map(str, logs)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def request(phase, value, session_id=SID):
    return f"< filter|0.7|2.5|smtp-in|{phase}|{session_id}|{TOKEN}|{value}"


def result(decision, session_id=SID):
    return f"> filter-result|{session_id}|{TOKEN}|{decision}"


def message(*lines, out):
    asked = [request("data-line", line) for line in (*lines, ".")]
    return asked + [f"> filter-dataline|{SID}|{TOKEN}|{line}" for line in (*out, ".")]


@pytest.fixture
def write(tmp_path):
    def write(*lines, head=ALL, name="log"):
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in (*head, *lines)))
        return path

    return write


# Recordings of real servers, into a filter that answers as the recorded one did.
SAME = [
    "plain",
    "auth-plain",
    "auth-login",
    "decide-auth",
    "decide-mail-from",
    "decide-connect",
    "decide-ehlo",
    "decide-commit",
    "data-change",
    "data-remove",
    "data-add",
    "line-lengths",
    "body-8bit",
    "held-data-line-mid-data",
    "client-quits-mid-data",
    "pipelining",
    "never-answers",
    "timeout",
    "null-sender",
    "decide-odd-messages",
    "decide-commit-rewrite",
    "out-and-in",
    "builtin-report",
]


@pytest.mark.parametrize("server", ["smtpd-7.8.0", "smtpd-6.8.0p2"])
@pytest.mark.parametrize("name", SAME)
def test_a_filter_that_answers_as_the_recorded_one_makes_no_difference(server, name):
    command = shlex.join(Recorded(server, name).tap())
    log = TRANSCRIPTS / server / f"{name}.log"
    done = replay(command, log, options=["--command", "--timeout", "10"])
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith(": 0 differences\n")


def test_every_changed_decision_is_told_with_session_phase_parameter_and_both_decisions():
    """The sender of this recording is answered in another way each time."""
    recorded = Recorded("smtpd-7.8.0", "decide-mail-from")
    answers = recorded.tap()
    done = replay(
        shlex.join(tap(register=recorded.register)),
        TRANSCRIPTS / "smtpd-7.8.0" / "decide-mail-from.log",
        options=["--command"],
    )
    assert done.returncode == 1
    expected = [
        (session_id, decision)
        for session_id, given in recorded.answers.items()
        for phase, decision in given
        if phase == "mail-from" and decision != "proceed"
    ]
    assert len(expected) > 10, answers
    found = re.findall(
        r"^session (\w+) \(client\.example\.net 192\.0\.2\.10:\d+\), "
        r"mail-from alice@example\.net.*\n"
        r"    recorded: (.*)\n    now:      proceed$",
        done.stdout,
        re.MULTILINE,
    )
    assert found == expected


def test_a_message_that_is_passed_on_otherwise_is_told_with_its_first_line_that_differs(write):
    log = write(CONNECT, *message("Subject: x", "", "hi", out=["Subject: x", "", "hi", "old"]))
    done = replay(JUDGE, log, options=["--filter-option", "--footer=new"])
    assert done.returncode == 1
    assert done.stdout.splitlines()[:3] == [
        f"session {SID} (rdns.example 192.0.2.10:1), data-line",
        "    recorded: 4 lines, line 4: old",
        "    now:      4 lines, line 4: new",
    ]


def test_a_message_with_more_lines_is_told(write):
    log = write(CONNECT, *message("hi", out=["hi"]))
    done = replay(JUDGE, log)
    assert "    recorded: 1 lines, no line 2\n    now:      2 lines, line 2: checked" in done.stdout


def test_options_of_the_filter_reach_it(write):
    log = write(CONNECT, request("mail-from", "a@b.example"), result("proceed"), LEAVE)
    assert replay(JUDGE, log).returncode == 0
    done = replay(JUDGE, log, options=["--filter-option=--refuse", "--filter-option=a@b.example"])
    assert done.returncode == 1
    assert "now:      reject|550 5.7.1 refused" in done.stdout


def test_after_an_answer_that_ends_the_session_no_more_of_it_is_played(write):
    log = write(
        CONNECT,
        *(request("mail-from", "nobody@example.net"), result("proceed")),
        *(request("mail-from", "spammer@example.net"), result("proceed")),
        LEAVE,
        *(line.replace(SID, "0" * 15 + "1") for line in (CONNECT, request("ehlo", "x"))),
        result("proceed", "0" * 15 + "1"),
    )
    done = replay(JUDGE, log)
    assert done.stdout.count("    now:") == 1
    assert done.stdout.endswith("2 sessions, 2 requests, 0 messages: 1 difference in 1 session\n")


def test_an_observing_filter_ends_no_session_and_has_one_line_for_each_difference(write):
    asked = [request("mail-from", sender) for sender in ("nobody@example.net", "ok@example.net")]
    asked.append(request("mail-from", "spammer@example.net"))
    lines = [CONNECT, *(line for ask in asked for line in (ask, result("proceed"))), LEAVE]
    done = replay(JUDGE, write(*lines), options=["--observe"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"session {SID} (rdns.example 192.0.2.10:1), mail-from nobody@example.net: proceed, "
        "would be disconnect|550 go away",
        f"session {SID} (rdns.example 192.0.2.10:1), mail-from spammer@example.net: proceed, "
        "would be reject|550 5.7.1 refused",
        "1 session, 3 requests, 0 messages: 2 differences in 1 session",
    ]


def test_a_chain_is_replayed_like_any_filter(write, tmp_path):
    chain = tmp_path / "mx.toml"
    block = f"[[filter]]\nrun = {str(JUDGE)!r}\n"
    chain.write_text(block + "when = { networks = ['198.51.100.0/24'] }\n" + block)
    asked = [request("mail-from", "spammer@example.net"), result("proceed")]
    done = replay(chain, write(CONNECT, *asked, LEAVE))
    assert done.returncode == 1
    assert done.stdout.count("now:      reject|550 5.7.1 refused") == 1


def test_after_another_answer_the_session_is_played_on_and_later_differences_are_marked(write):
    log = write(
        CONNECT,
        *(request("ehlo", "unknown.example.net"), result("proceed")),
        *(request("mail-from", "spammer@example.net"), result("proceed")),
        LEAVE,
    )
    lines = replay(JUDGE, log).stdout.splitlines()
    assert lines[0].endswith("ehlo unknown.example.net")
    assert lines[3].endswith("mail-from spammer@example.net  [after the first of this session]")
    assert lines[-1] == "1 session, 2 requests, 0 messages: 2 differences in 1 session"


def test_a_phase_that_the_filter_does_not_register_is_a_proceed(write):
    log = write(CONNECT, request("rcpt-to", "a@b.example"), result("reject|550 no"), LEAVE)
    done = replay(JUDGE, log)
    assert "    recorded: reject|550 no\n    now:      proceed\n" in done.stdout


def test_what_was_not_recorded_for_this_filter_is_noted(write):
    head = [*CONFIG, "> register|report|smtp-in|*", "> register|filter|smtp-in|ehlo"]
    done = replay(JUDGE, write(CONNECT, LEAVE, head=[*head, "> register|ready"]))
    assert (
        "not played, as the recorded filter did not register it: "
        "filter commit, filter data-line, filter mail-from\n"
    ) in done.stdout
    assert done.returncode == 0


def test_sessions_that_began_before_the_recording_are_left_out_and_counted(write):
    log = write(request("ehlo", "x"), result("reject|550 no"), LEAVE)
    done = replay(JUDGE, log)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "not played, as the recording begins later: 1 session",
        "0 sessions, 0 requests, 0 messages: 0 differences",
    ]


@pytest.mark.parametrize("lines", [(), ALL, CONFIG])
def test_a_recording_without_sessions_is_an_error(write, lines):
    log = write(head=lines)
    done = replay("no-such-filter.py", log)
    assert done.stderr == f"greenfilter: {log}: no sessions in it; nothing was played\n"
    assert (done.stdout, done.returncode) == ("", 2)


def test_the_timeline_has_all_sessions_that_the_summary_counts(write, tmp_path):
    out = f"< report|0.7|1.5|smtp-out|link-connect|{SID[::-1]}|mx.example|pass|192.0.2.9:1|x:25"
    log = write(CONNECT, request("ehlo", "x"), result("proceed"), LEAVE, out)
    page = tmp_path / "page.html"
    done = replay(JUDGE, log, options=["--timeline", page])
    assert done.stdout.endswith("2 sessions, 1 request, 0 messages: 0 differences\n")
    data = re.search(r'id="data"[^>]*>(.*?)</script>', page.read_text(), re.DOTALL)
    sessions = json.loads(data[1])["sessions"]
    assert [(sid, client, len(requests)) for sid, client, requests in sessions] == [
        (SID, "rdns.example 192.0.2.10:1", 1),
        (SID[::-1], "mx.example 192.0.2.9:1", 0),
    ]


def test_a_file_that_goes_on_where_another_was_full_goes_on_with_the_same_filter(write):
    first = write("1.5 " + CONNECT, "2.5 " + request("ehlo", "x"))
    second = write(
        "3.0 " + result("proceed"),
        "3.5 " + request("mail-from", "a@b.example"),
        "4.0 " + result("proceed"),
        "9.5 " + LEAVE,
        name="log.0",
    )
    done = replay(JUDGE, second, first)
    assert (done.returncode, done.stdout) == (
        0,
        "1 session, 2 requests, 0 messages: 0 differences\n",
    )


def test_passwords_are_not_printed(write):
    log = write(CONNECT, request("auth", "PLAIN AGFsaWNlAHNlY3JldA=="), result("reject|550 no"))
    done = replay(JUDGE, log)
    assert done.returncode == 1
    assert "auth PLAIN AGFsaWNlACoqKioqKioq" in done.stdout
    assert "c2VjcmV0" not in done.stdout
    assert "NlY3JldA" not in done.stdout


def test_hostile_text_cannot_reach_the_terminal(write):
    log = write(CONNECT, request("mail-from", "\x1b[2J\u202e\x07"), result("reject|550 \x9b"))
    done = replay(JUDGE, log)
    assert "mail-from \\x1b[2J\\u202e\\x07" in done.stdout
    assert "reject|550 \\x9b" in done.stdout


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("hello", "neither 'TIME < line' nor 'TIME > line'"),
        ("< filter|0.7|1.5|smtp-in|ehlo", "not a line of smtpd's"),
        ("< report|0.9|1.5|smtp-in|timeout|" + SID, "protocol version '0.9'"),
    ],
)
def test_an_unreadable_recording_is_an_error_with_file_and_line(write, line, reason):
    log = write(line)
    done = replay(JUDGE, log)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"greenfilter: {log}:{len(ALL) + 1}: {reason}")


def test_a_recording_without_a_handshake_is_an_error(write):
    log = write(CONNECT, head=[])
    done = replay(JUDGE, log)
    assert (done.returncode, done.stderr.startswith(f"greenfilter: {log}:1: no handshake")) == (
        2,
        True,
    )


def test_a_filter_that_does_not_start_is_an_error(write, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n")
    for target, options in ((broken, []), ("/nowhere/filter", ["--command"])):
        done = replay(target, write(CONNECT), options=options)
        assert done.returncode == 2
        assert "the filter did not start" in done.stderr
    assert "nothing_of_this_name" in replay(broken, write(CONNECT)).stderr


def test_a_filter_that_does_what_smtpd_would_die_of_is_told(write):
    log = write(CONNECT, request("ehlo", "x"), result("proceed"), LEAVE)
    die = tap(register=["filter|smtp-in|ehlo"], answers={"ehlo": ["nonsense"]})
    done = replay(shlex.join(die), log, options=["--command"])
    assert done.returncode == 1
    assert f"smtpd would not forgive this: session {SID}: unknown decision" in done.stdout


def test_an_answer_that_smtpd_does_not_take_is_told_with_the_reason(write):
    log = write(CONNECT, request("ehlo", "x"), result("proceed"), request("quit", ""), LEAVE)
    odd = tap(register=["filter|smtp-in|ehlo"], answers={"ehlo": ["reject|never"]})
    done = replay(shlex.join(odd), log, options=["--command"])
    assert done.stdout.splitlines()[1:4] == [
        "    recorded: proceed",
        "    now:      reject|never",
        "    smtpd:    reject at ehlo without an SMTP reply '[45]dd text'",
    ]
    assert done.stdout.endswith("1 session, 1 request, 0 messages: 1 difference in 1 session\n")


def test_a_recorded_filter_that_cut_a_message_short_is_replayed_up_to_there():
    done = replay(
        shlex.join(Recorded("smtpd-7.8.0", "data-unstuffed").tap()),
        TRANSCRIPTS / "smtpd-7.8.0" / "data-unstuffed-lone-dot.log",
        options=["--command"],
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_that_dies_is_answered_by_policy_and_that_is_a_difference(write):
    log = write(CONNECT, request("ehlo", "x"), result("proceed"), LEAVE)
    done = replay(JUDGE, log, options=["--filter-option=--die"])
    assert done.returncode == 1
    assert "now:      reject|451 4.3.0 " in done.stdout


def test_what_the_filter_logged_about_a_difference_is_shown(write):
    log = write(CONNECT, request("ehlo", "raise"), result("proceed"), LEAVE)
    done = replay(JUDGE, log)
    assert done.returncode == 1
    assert re.search(r"^the filter's log: error: .*RuntimeError: as asked", done.stderr, re.M)


def test_an_answer_that_does_not_come_is_a_difference(write):
    log = write(CONNECT, request("ehlo", "x"), result("proceed"), LEAVE)
    silent = f"import os, time; os.write(1, {b'register|filter|smtp-in|ehlo'!r} + b'\\n'"
    silent += " + b'register|ready\\n'); time.sleep(60)"
    command = shlex.join([sys.executable, "-c", silent])
    done = replay(command, log, options=["--command", "--timeout", "1"])
    assert done.returncode == 1
    assert "now:      no answer within 1.0 s" in done.stdout


def test_with_the_original_speed_the_pauses_are_kept(write):
    """Two seconds lie between the lines of this recording."""
    log = write(CONNECT, request("ehlo", "x").replace("2.5", "3.5"), result("proceed"))
    page = log.with_suffix(".html")
    assert replay(JUDGE, log, options=["--speed", "original", "--timeline", page]).returncode == 0
    began = float(re.search(r'\["ehlo","x",[\d.]+,null,([\d.]+),', page.read_text())[1])
    assert began >= 1.99


@pytest.mark.parametrize("lines", [10, 40_000])
def test_a_long_recording_has_a_progress_bar_on_a_terminal(write, lines):
    timeout = f"< report|0.7|1.5|smtp-in|timeout|{SID}"
    log = write(CONNECT, *[timeout] * lines, LEAVE)
    ours, theirs = pty.openpty()
    command = [*GREENFILTER, "replay", str(JUDGE), str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # the other end is closed
    output, _ = process.communicate(timeout=30)
    os.close(ours)
    assert output == b"1 session, 0 requests, 0 messages: 0 differences\n"
    assert (b"100%" in shown) == (lines > 10)


def test_a_command_line_that_is_none_is_told(write):
    done = replay("filter 'half", write(CONNECT, LEAVE), options=["--command"])
    assert done.returncode == 2
    assert (
        done.stderr == 'greenfilter: "filter \'half" is not a valid command: No closing quotation\n'
    )
