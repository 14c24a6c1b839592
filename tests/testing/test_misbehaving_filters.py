"""FakeSmtpd against filters that real smtpd would not survive."""

from __future__ import annotations

import sys

import pytest

from greenfilter.testing import ClientCut, FakeSmtpd, OracleError, SmtpdWouldDie, SmtpdWouldHang

from .driving import MESSAGE, TAP, greeted, in_transaction, sent, tap


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("nonsense|x", "unknown decision"),
        ("reject", "parameter is missing"),
        ("proceed|x", "unknown decision"),
        ("proceed\r", "unknown decision"),
        ("print hello world", "hello world"),
        ("!", "neither filter-result nor"),
        ("!filter-result|%S|0123456789abcdef|proceed", "the token of mail-from is"),
        ("!filter-dataline|%S|%T|x", "data line in phase mail-from"),
        ("!register|filter|smtp-in|noop", "registration after"),
        ("!report|1.000001|smtp-in|%S|hi", "cannot write reports"),
        ("exit 0", "the filter ended"),
        ("exit 3", "exit status was 3"),
    ],
)
def test_the_server_would_die(answer, reason):
    with (
        pytest.raises(SmtpdWouldDie, match=reason),
        FakeSmtpd(tap(answers={"mail-from": [answer]})) as smtpd,
    ):
        greeted(smtpd).mail_from("alice@example.net")


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("after-dot", "after the final dot|data line in phase commit"),
        ("unstuffed", "lone dot|after the final dot|data line in phase commit"),
        ("result", "filter-result in phase data-line"),
    ],
)
def test_the_server_would_die_of_what_is_written_for_data(mode, reason):
    with pytest.raises(SmtpdWouldDie, match=reason), FakeSmtpd(tap(data=mode)) as smtpd:
        in_transaction(smtpd).data(b"one\n.\ntwo\n")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"register": ["filter|smtp-in|vrfy"]}, "unknown phase"),
        ({"register": ["filter|smtp-out|connect"]}, "cannot be registered"),
        ({"register": ["report|smtp-in|link-foo"]}, "unknown report"),
        ({"register": ["ready"]}, "registration after register|ready"),
    ],
)
def test_the_server_would_die_of_the_registration(spec, reason):
    with pytest.raises(SmtpdWouldDie, match=reason), FakeSmtpd(tap(**spec)):
        pass


def test_the_report_decision_depends_on_the_version():
    spec = tap(answers={"connect": ["report|seen"]})
    with FakeSmtpd(spec, version="0.7") as smtpd:
        assert smtpd.connect().reply.code == 220
    with pytest.raises(SmtpdWouldDie, match="unknown decision"), FakeSmtpd(spec, "0.6") as smtpd:
        smtpd.connect()


def test_a_registration_that_does_not_end_hangs_the_server():
    with (
        pytest.raises(SmtpdWouldHang, match=r"no register\|ready within"),
        FakeSmtpd(tap(ready=False), timeout=0.2),
    ):
        pass


def test_no_answer_hangs_the_session_and_no_other():
    with FakeSmtpd(tap(answers={"mail-from": ["none"]}), timeout=0.2) as smtpd:
        session = greeted(smtpd)
        with pytest.raises(SmtpdWouldHang, match="no answer to mail-from within") as caught:
            session.mail_from("alice@example.net")
        assert caught.value.session_id == session.id
        with pytest.raises(SmtpdWouldHang):
            session.noop()
        assert in_transaction(smtpd).data(MESSAGE).ok


def test_a_message_without_its_dot_hangs_the_session():
    with FakeSmtpd(tap(data="without-dot"), timeout=0.2) as smtpd:
        session = in_transaction(smtpd)
        with pytest.raises(SmtpdWouldHang, match="no end of the message"):
            session.data(MESSAGE)


def test_swapped_ids_and_rewrite_at_commit_hang_the_session():
    answers = {"mail-from": ["!filter-result|%T|%S|proceed"], "commit": ["rewrite|x"]}
    with FakeSmtpd(tap(answers=answers)) as smtpd:
        session = greeted(smtpd)
        with pytest.raises(SmtpdWouldHang, match="swapped"):
            session.mail_from("alice@example.net")
        session = in_transaction(smtpd)
        with pytest.raises(SmtpdWouldHang, match="rewrite at commit"):
            session.data(MESSAGE)


def test_a_text_that_is_no_reply_cuts_the_client_as_smtpd_does():
    with FakeSmtpd(tap(answers={"mail-from": ["reject|250 ok"]})) as smtpd:
        session = greeted(smtpd)
        with pytest.raises(ClientCut, match="250 ok"):
            session.mail_from("alice@example.net")
        assert session.reply.lines == ("421 Internal server error",)
        assert session.closed
        assert in_transaction(smtpd).data(MESSAGE).ok
    assert "mail-from|disconnect|421 Internal server error" in sent(smtpd, "filter-response")


def test_requests_that_are_out_when_the_filter_ends_all_fail():
    answers = {"mail-from": ["none", "none", "exit 1"]}
    smtpd = FakeSmtpd(tap(answers=answers))
    with pytest.raises(SmtpdWouldDie), smtpd:
        ask_three_at_once(smtpd)
    assert len(smtpd.errors) == 1


def ask_three_at_once(smtpd: FakeSmtpd) -> None:
    sessions = [greeted(smtpd) for _ in range(3)]
    pending = [smtpd.start(session.mail_from, "a@example.net") for session in sessions]
    for greenlet in pending:
        with pytest.raises(SmtpdWouldDie, match="exit status was 1"):
            greenlet.get(timeout=10)


@pytest.mark.parametrize("phase", ["noop", "quit"])
def test_a_line_too_many_that_nobody_waits_for_is_raised_at_the_end(phase):
    answer = "!filter-result|%S|%T|proceed\nfilter-result|%S|%T|proceed"
    smtpd = FakeSmtpd(tap(answers={phase: [answer]}, register=[f"filter|smtp-in|{phase}"]))
    with pytest.raises(SmtpdWouldDie, match=r"was answered|is over"), smtpd:
        assert greeted(smtpd).command(phase.upper()).ok


def test_an_error_that_was_raised_is_not_raised_again_at_the_end():
    with FakeSmtpd(tap(answers={"mail-from": ["nonsense|x"]})) as smtpd:
        session = greeted(smtpd)
        with pytest.raises(SmtpdWouldDie):
            session.mail_from("alice@example.net")
        with pytest.raises(SmtpdWouldDie):
            smtpd.connect()
    assert len(smtpd.errors) == 1


def test_an_error_that_nobody_saw_is_noted_on_the_exception_that_ends_the_test():
    smtpd = FakeSmtpd(tap(answers={"mail-from": ["print hello world"]}))
    with pytest.raises(ZeroDivisionError) as caught, smtpd:
        smtpd.start(greeted(smtpd).mail_from, "a@example.net").join() or 1 // 0
    assert "hello world" in caught.value.__notes__[0]


def test_a_filter_must_end_well_at_end_of_file():
    with pytest.raises(OracleError, match="exit status was 4"), FakeSmtpd(tap(status=4)):
        pass


def test_a_filter_that_does_not_end_is_killed_and_named():
    command = [sys.executable, "-c", "print('register|ready', flush=True); input(); import time\n"]
    command[-1] += "while True: time.sleep(1)"
    with pytest.raises(OracleError, match="it still ran"), FakeSmtpd(command, timeout=0.5):
        pass


REGISTERED = """
import os, time
print("register|filter|smtp-in|commit", flush=True)
print("register|ready", flush=True)
"""


def test_a_filter_that_does_not_read_hangs_the_server():
    command = [sys.executable, "-c", REGISTERED + "time.sleep(60)"]
    smtpd = FakeSmtpd(command, timeout=0.5)
    with pytest.raises(SmtpdWouldHang, match="did not read"), smtpd:
        smtpd.send_raw(b"x" * 1_000_000)


def test_a_filter_that_closes_its_socket_and_runs_on_hangs_the_server():
    command = [sys.executable, "-c", REGISTERED + "os.close(0); os.close(1); time.sleep(60)"]
    smtpd = FakeSmtpd(command, timeout=1)
    with pytest.raises(SmtpdWouldHang, match="closed its socket"), smtpd:
        ask_for_commit(smtpd)


def ask_for_commit(smtpd: FakeSmtpd) -> None:
    in_transaction(smtpd).data(b"hello")


def test_output_without_a_newline_fills_the_servers_buffer():
    write = "os.set_blocking(1, True); os.write(1, b'x' * 100_000); time.sleep(60)"
    smtpd = FakeSmtpd([sys.executable, "-c", REGISTERED + write], timeout=1)
    with pytest.raises(SmtpdWouldHang, match="without a newline"), smtpd:
        ask_for_commit(smtpd)


def test_the_log_of_a_filter_that_crashed_is_in_the_error():
    command = [sys.executable, "-c", "raise SystemExit('no such table')"]
    with pytest.raises(SmtpdWouldDie, match="no such table"), FakeSmtpd(command):
        pass


def test_a_command_that_cannot_run_is_an_os_error():
    with pytest.raises(FileNotFoundError), FakeSmtpd(["/nonexistent/filter"]):
        pass


def test_an_unknown_version_is_a_value_error():
    with pytest.raises(ValueError, match=r"'0\.8' is not one of"):
        FakeSmtpd(TAP, version="0.8")


def test_raw_bytes_reach_the_filter():
    with FakeSmtpd(TAP) as smtpd:
        smtpd.send_raw(
            b"report|0.7|1.000001|smtp-in|tx-reset|nonsense\nfilter|0.7|1.0|smtp-in|ehlo"
        )
        smtpd.send_raw(b"|00000000000000aa|00000000000000bb|x\n")
        greeted(smtpd)
    written = [line for direction, line in smtpd.trace if direction == ">"]
    assert b"filter-result|00000000000000aa|00000000000000bb|proceed" in written
