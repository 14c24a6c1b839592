"""Each rule of smtpd's, line by line, where no recording shows it or a version changes it."""

from __future__ import annotations

import pytest

from greenfilter._smtpd.oracle import (
    Answer,
    ClientCut,
    DataLine,
    EndOfData,
    Ignored,
    Oracle,
    OracleError,
    SmtpdWouldDie,
    SmtpdWouldHang,
)

SID, TOKEN, OTHER = "00000000000000a1", "00000000000000b2", "00000000000000c3"
RESULT = f"filter-result|{SID}|{TOKEN}|".encode()
DATA = f"filter-dataline|{SID}|{TOKEN}|".encode()


def asked(phase: str = "mail-from", version: tuple[int, int] = (0, 7)) -> Oracle:
    oracle = Oracle(version, ready=True)
    oracle.begin(SID)
    oracle.ask(SID, phase, TOKEN)
    return oracle


def in_data(version: tuple[int, int] = (0, 7), *lines: bytes) -> Oracle:
    oracle = Oracle(version, ready=True)
    oracle.begin(SID)
    for line in lines or (b"hello", b"."):
        oracle.data_line(SID, TOKEN, line)
    return oracle


@pytest.mark.parametrize(
    ("decision", "kind", "parameter"),
    [
        (b"proceed", "proceed", b""),
        (b"junk", "junk", b""),
        (b"reject|550 no | thanks", "reject", b"550 no | thanks"),
        (b"disconnect|421 4.3.0 bye", "disconnect", b"421 4.3.0 bye"),
        (b"rewrite|<a@b>", "rewrite", b"<a@b>"),
        (b"rewrite|", "rewrite", b""),
        (b"report|text", "report", b"text"),
    ],
)
def test_a_decision_answers_the_request(decision, kind, parameter):
    oracle = asked()
    assert oracle.receive(RESULT + decision) == Answer(SID, "mail-from", kind, parameter)
    assert oracle.unanswered() == {}


@pytest.mark.parametrize("version", [(0, 4), (0, 5), (0, 6)])
def test_the_report_decision_kills_a_server_before_0_7(version):
    line = f"filter-result|{SID}|{TOKEN}|report|x"
    if version == (0, 4):
        line = f"filter-result|{TOKEN}|{SID}|report|x"
    with pytest.raises(SmtpdWouldDie, match="unknown decision"):
        asked(version=version).receive(line.encode())


def test_before_0_5_the_token_comes_first():
    line = f"filter-result|{TOKEN}|{SID}|proceed".encode()
    assert asked(version=(0, 4)).receive(line) == Answer(SID, "mail-from", "proceed")
    with pytest.raises(SmtpdWouldHang, match="swapped"):
        asked(version=(0, 5)).receive(line)
    with pytest.raises(SmtpdWouldHang, match="swapped"):
        asked(version=(0, 4)).receive(RESULT + b"proceed")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"proceed",
        b"filter-result",
        b"filter-result|",
        b"filter-result|xyz|00000000000000b2|proceed",
        f"filter-result|{SID}|{TOKEN}".encode(),
        f"filter-result|{SID}||proceed".encode(),
        f"filter-result|{SID}|{'f' * 17}|proceed".encode(),
        f"filter-result|{SID}|{OTHER}|proceed".encode(),
        f"filter-result|{SID}|{OTHER}|reject|550 no".encode(),
        RESULT,
        RESULT + b"proceed\r",
        RESULT + b"proceed|",
        RESULT + b"junk|x",
        RESULT + b"PROCEED",
        RESULT + b"reject",
        RESULT + b"accept|x",
        RESULT + b"rewrite",
        DATA + b"hello",
        b"register|ready",
        b"register|report|smtp-in|timeout",
        b"report|1.000001|smtp-in|x",
    ],
)
def test_kills_the_server(line):
    with pytest.raises(SmtpdWouldDie):
        asked().receive(line)


@pytest.mark.parametrize("text", [b"", b"550", b"550 ", b"550-x", b"250 ok", b"x50 no", b"no"])
@pytest.mark.parametrize("kind", [b"reject|", b"disconnect|"])
def test_a_text_that_is_no_smtp_reply_cuts_the_client_and_is_an_answer(kind, text):
    oracle = asked()
    with pytest.raises(ClientCut) as caught:
        oracle.receive(RESULT + kind + text)
    assert caught.value.session_id == SID
    assert oracle.unanswered() == {}


def test_ids_are_compared_as_numbers():
    assert asked().receive(b"filter-result|A1|b2|proceed") == Answer(SID, "mail-from", "proceed")


def test_a_nul_ends_the_line():
    assert asked().receive(RESULT + b"proceed\0|x").kind == "proceed"


def test_the_second_answer_kills():
    oracle = asked()
    oracle.receive(RESULT + b"proceed")
    with pytest.raises(SmtpdWouldDie, match="mail-from was answered"):
        oracle.receive(RESULT + b"reject|550 no")


def test_an_answer_after_a_new_phase_began_unasked_kills():
    oracle = asked()
    oracle.receive(RESULT + b"proceed")
    oracle.skip(SID, "rcpt-to")
    with pytest.raises(SmtpdWouldDie):
        oracle.receive(RESULT + b"proceed")


def test_late_data_lines_and_unknown_sessions_are_ignored():
    oracle = in_data()
    oracle.end(SID)
    assert oracle.receive(DATA + b"late") == Ignored()
    assert oracle.receive(f"filter-result|{OTHER}|{TOKEN}|nonsense".encode()) == Ignored()


def test_an_answer_for_a_session_that_ended_is_one_too_many():
    oracle = asked("quit")
    oracle.receive(RESULT + b"proceed")
    oracle.end(SID)
    with pytest.raises(SmtpdWouldDie, match="session is over"):
        oracle.receive(RESULT + b"proceed")


def test_one_token_serves_all_sessions():
    oracle = asked()
    oracle.ask(OTHER, "mail-from", TOKEN)
    answer = oracle.receive(f"filter-result|{OTHER}|{TOKEN}|proceed".encode())
    assert answer.session_id == OTHER
    assert oracle.unanswered() == {SID: "mail-from"}


def test_data_lines_come_in_any_number_and_end_in_one_dot():
    oracle = in_data()
    assert oracle.receive(DATA + b"one|two") == DataLine(SID, b"one|two")
    assert oracle.receive(DATA) == DataLine(SID, b"")
    assert oracle.unanswered() == {SID: "data-line"}
    assert oracle.receive(DATA + b".") == EndOfData(SID)
    assert oracle.unanswered() == {}
    with pytest.raises(SmtpdWouldDie, match="after the final dot"):
        oracle.receive(DATA + b"more")


def test_a_dot_before_the_end_of_the_message_kills():
    with pytest.raises(SmtpdWouldDie, match="a lone dot before"):
        in_data((0, 7), b"hello").receive(DATA + b".")


def test_the_next_message_of_a_session_begins_anew():
    oracle = in_data()
    oracle.receive(DATA + b".")
    oracle.skip(SID, "commit")
    oracle.data_line(SID, TOKEN, b"second")
    with pytest.raises(SmtpdWouldDie, match="a lone dot before"):
        oracle.receive(DATA + b".")


def test_a_result_among_data_lines_kills():
    with pytest.raises(SmtpdWouldDie, match="in phase data-line"):
        in_data().receive(RESULT + b"proceed")


def test_old_servers_cut_lines_at_2047_bytes_silently():
    assert in_data((0, 6)).receive(DATA + b"x" * 3000) == DataLine(SID, b"x" * 1997)
    assert in_data((0, 7)).receive(DATA + b"x" * 3000) == DataLine(SID, b"x" * 3000)
    answer = asked(version=(0, 6)).receive(RESULT + b"reject|550 " + b"x" * 3000)
    assert len(RESULT + b"reject|" + answer.parameter) == 2047


def test_a_reply_above_16_kib_kills_and_a_data_line_does_not():
    with pytest.raises(SmtpdWouldDie, match="16 KiB"):
        asked().receive(RESULT + b"reject|550 " + b"x" * 16_384)
    assert in_data().receive(DATA + b"x" * 60_000) == DataLine(SID, b"x" * 60_000)


def test_a_line_that_fills_the_input_buffer_hangs():
    with pytest.raises(SmtpdWouldHang, match="input buffer"):
        in_data().receive(DATA + b"x" * 64_000)


def test_rewrite_at_commit_hangs_and_junk_there_kills():
    with pytest.raises(SmtpdWouldHang, match="rewrite at commit"):
        asked("commit").receive(RESULT + b"rewrite|x")
    with pytest.raises(SmtpdWouldDie, match="junk at commit"):
        asked("commit").receive(RESULT + b"junk")


@pytest.mark.parametrize(
    "line",
    [
        b"register|filter|smtp-in|vrfy",
        b"register|filter|smtp-in|*",
        b"register|filter|smtp-out|connect",
        b"register|report|smtp-in|link-foo",
        b"register|report|smtp-side|timeout",
        b"register|report|smtp-in",
        b"register|hook|smtp-in|timeout",
        b"register|",
        RESULT + b"proceed",
        b"hello",
        b"",
    ],
)
def test_what_is_no_registration_kills_before_ready(line):
    with pytest.raises(SmtpdWouldDie):
        Oracle().receive(line)


def test_registrations_are_collected_and_a_star_is_all_reports():
    oracle = Oracle()
    oracle.receive(b"register|report|smtp-out|*")
    oracle.receive(b"register|report|smtp-in|tx-rcpt")
    oracle.receive(b"register|report|smtp-in|tx-rcpt")
    oracle.receive(b"register|filter|smtp-in|data-line")
    assert not oracle.ready
    oracle.receive(b"register|ready")
    assert oracle.ready
    assert oracle.reports["smtp-in", "tx-rcpt"] == 2
    assert ("report", "smtp-out", "timeout") in oracle.registered
    assert len([entry for entry in oracle.registered if entry[1] == "smtp-out"]) == 19
    assert ("filter", "smtp-in", "data-line") in oracle.registered


def test_an_error_names_the_line_the_session_and_is_an_assertion():
    with pytest.raises(AssertionError) as caught:
        asked().receive(RESULT + b"nonsense|x")
    assert isinstance(caught.value, OracleError)
    assert "nonsense" in str(caught.value)
    assert caught.value.line == RESULT + b"nonsense|x"
    assert caught.value.session_id == SID
