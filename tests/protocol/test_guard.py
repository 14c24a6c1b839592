"""The guard: exactly one legal answer for each request, and nothing else."""

import pytest

from greenfilter.errors import DecisionError
from greenfilter.protocol import (
    LINE_TOO_LONG,
    PHASES,
    PROCEED,
    TEMPFAIL,
    Call,
    Connection,
    Decision,
    Guard,
    Phase,
    Session,
    Stream,
    disconnect,
    junk,
    reject,
    report,
    rewrite,
)
from tests.protocol.driver import SID, TOKEN, request
from tests.protocol.driver import report as report_line

DECISIONS = {
    "proceed": PROCEED,
    "junk": junk(),
    "reject": reject(550, "no"),
    "disconnect": disconnect(421, "bye"),
    "rewrite": rewrite("<new@example.org>"),
    "report": report("seen"),
}
ASKED = sorted(set(PHASES) - {"data_line"})


def asked(phase: str = "ehlo", version: str = "0.7", guard: Guard | None = None) -> Call:
    """A request that smtpd waits for."""
    connection = Connection()
    (session,) = connection.receive(request(PHASES[phase].wire, version=version))
    call = session.queue.popleft()
    (guard or Guard()).expect(call, 30.0, 0.0)
    return call


def message(version: str = "0.7") -> tuple[Session, Stream]:
    """A message whose lines smtpd waits for."""
    connection = Connection()
    (session,) = connection.receive(request("data-line", b"first", version=version))
    return session, session.queue.popleft().stream


def next_of(session: Session, phase: str = "commit") -> Call:
    """The next request of a session."""
    connection = Connection()
    connection.sessions[session.sid] = session
    connection.receive(request(phase))
    return session.queue.pop()


def answered(guard: Guard, call: Call, decision: Decision) -> bytes:
    line = guard.answer(call, decision)
    assert line is not None
    return line.removeprefix(b"filter-result|%b|%b|" % (SID, TOKEN)).removesuffix(b"\n")


# Exactly one answer


def test_an_answer_names_session_and_token():
    assert Guard().answer(asked(), PROCEED) == b"filter-result|%b|%b|proceed\n" % (SID, TOKEN)


def test_version_0_4_wants_the_token_first():
    assert Guard().answer(asked(version="0.4"), PROCEED) == (
        b"filter-result|%b|%b|proceed\n" % (TOKEN, SID)
    )


@pytest.mark.parametrize("version", ["0.5", "0./", "0.:", "0.44", "1.4"])
def test_all_others_want_the_session_first(version):
    ids = b"%b|%b" % (SID, TOKEN)
    assert Guard().answer(asked(version=version), PROCEED) == b"filter-result|%b|proceed\n" % ids
    guard = Guard()
    assert guard.proceed(asked(version=version, guard=guard)) == b"filter-result|%b|proceed\n" % ids


def test_a_second_answer_is_nothing():
    guard = Guard()
    call = asked(guard=guard)
    assert guard.is_owed(call)
    assert guard.answer(call, PROCEED) is not None
    assert not guard.is_owed(call)
    assert guard.answer(call, PROCEED) is None
    assert guard.answer(call, reject(550, "no")) is None


def test_what_was_not_asked_for_is_not_answered():
    guard = Guard()
    (session,) = Connection().receive(request("noop"))
    assert guard.answer(session.queue[0], PROCEED) is None
    assert not guard.is_owed(session.queue[0])


def test_a_report_takes_no_answer():
    connection = Connection(deliver=[("smtp-in", "timeout")])
    (session,) = connection.receive(report_line("timeout"))
    assert Guard().answer(session.queue[0], PROCEED) is None
    with pytest.raises(DecisionError):
        Guard().answer(session.queue[0], reject(550, "no"))


def test_a_decision_that_is_not_legal_leaves_the_request_owed():
    guard = Guard()
    call = asked("commit", guard=guard)
    with pytest.raises(DecisionError):
        guard.answer(call, junk())
    assert guard.is_owed(call)
    assert guard.answer(call, TEMPFAIL) is not None


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7", "0.10", "x"])
@pytest.mark.parametrize("phase", sorted(set(ASKED) - {"commit"}))
def test_the_short_way_to_proceed_says_the_same_once(phase, version):
    guard = Guard()
    call = asked(phase, version, guard)
    line = guard.proceed(call)
    assert line == Guard().answer(asked(phase, version), PROCEED)
    assert guard.proceed(call) is None
    assert guard.answer(call, PROCEED) is None


def test_the_short_way_answers_nothing_that_was_not_asked():
    (session,) = Connection().receive(request("noop"))
    assert Guard().proceed(session.queue[0]) is None


# Legality


@pytest.mark.parametrize("kind", DECISIONS)
@pytest.mark.parametrize("phase", ASKED)
def test_a_phase_takes_the_decisions_of_the_catalogue_and_no_others(phase, kind):
    guard = Guard()
    call = asked(phase, guard=guard)
    if kind in PHASES[phase].decisions:
        decision = (
            rewrite("PLAIN AGE=") if (phase, kind) == ("auth", "rewrite") else DECISIONS[kind]
        )
        assert guard.answer(call, decision) is not None
    else:
        with pytest.raises(DecisionError, match=f"{kind} is not legal at {PHASES[phase].wire}"):
            guard.answer(call, DECISIONS[kind])


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
@pytest.mark.parametrize("phase", ["connect", "data", "commit"])
def test_report_is_refused_on_a_server_that_would_die_of_it(phase, version):
    with pytest.raises(DecisionError, match=r"smtpd 7\.6"):
        Guard().answer(asked(phase, version), report("seen"))


@pytest.mark.parametrize(
    ("server", "legal"),
    [
        ("7.4.0p1", False),
        ("7.5.0", False),
        ("7.6.0-portable", True),
        ("7.10.0", True),
        ("8.0", True),
        ("snapshot", True),
    ],
)
def test_report_is_refused_on_the_two_releases_of_protocol_07_that_would_die_of_it(server, legal):
    guard = Guard()
    guard.config.values["smtpd-version"] = server
    call = asked("connect", "0.7", guard)
    if legal:
        assert guard.answer(call, report("seen")) is not None
    else:
        with pytest.raises(DecisionError, match=r"smtpd 7\.6"):
            guard.answer(call, report("seen"))
        assert guard.is_owed(call)


def test_an_unknown_phase_can_only_be_let_through():
    (session,) = Connection().receive(request("nonsense"))
    call = session.queue.popleft()
    assert isinstance(call.hook, Phase)
    guard = Guard()
    guard.expect(call, 1.0, 0.0)
    with pytest.raises(DecisionError):
        guard.answer(call, reject(550, "no"))
    assert guard.answer(call, PROCEED) is not None


@pytest.mark.parametrize(
    "decision",
    [
        Decision("proceed", "x"),
        Decision("junk", "x"),
        Decision("reject"),
        Decision("disconnect"),
        Decision("rewrite"),
        Decision("nonsense", "x"),
        Decision("reject", "250 ok"),
        Decision("reject", "550"),
        Decision("reject", "550 "),
        Decision("reject", "550-x"),
        Decision("reject", "foo bar"),
        Decision("disconnect", "550 two\nlines"),
        Decision("reject", "550 carriage\rreturn"),
        Decision("reject", "550 nul\0"),
        Decision("rewrite", "two\nlines"),
        Decision("rewrite", "carriage\r"),
        Decision("proceed\n"),
    ],
)
def test_a_decision_that_smtpd_does_not_take_is_refused(decision):
    guard = Guard()
    call = asked("rcpt_to", guard=guard)
    with pytest.raises(DecisionError):
        guard.answer(call, decision)
    assert guard.is_owed(call)


# What is changed on its way


def test_reject_at_connect_becomes_disconnect():
    assert answered(Guard(), asked("connect"), reject(550, "no")) == b"disconnect|550 no"


@pytest.mark.parametrize("phase", sorted(set(ASKED) - {"connect", "auth"}))
def test_reject_elsewhere_stays_reject(phase):
    assert answered(Guard(), asked(phase), reject(550, "no")) == b"reject|550 no"


@pytest.mark.parametrize("phase", ["mail_from", "rcpt_to"])
@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("new@example.org", b"<new@example.org>"),
        ("<new@example.org>", b"<new@example.org>"),
        ("<new@example.org> SIZE=1", b"<new@example.org> SIZE=1"),
        ("<>", b"<>"),
    ],
)
def test_an_address_gets_its_brackets_once(phase, value, sent):
    assert answered(Guard(), asked(phase), rewrite(value)) == b"rewrite|" + sent


@pytest.mark.parametrize("phase", ["helo", "ehlo"])
def test_what_is_no_address_gets_none(phase):
    assert answered(Guard(), asked(phase), rewrite("new")) == b"rewrite|new"


# AUTH


@pytest.mark.parametrize("version", ["0.5", "0.6", "0.7"])
@pytest.mark.parametrize("refusal", [reject(550, "no"), reject(421, "no"), disconnect(451, "no")])
def test_auth_is_refused_without_a_word_of_the_client_in_the_log_of_smtpd(refusal, version):
    assert answered(Guard(), asked("auth", version), refusal) == b"rewrite|PLAIN ="


@pytest.mark.parametrize("value", ["PLAIN", "plain AGE=", "LOGIN", "LOGIN YQ==", "PLAIN ="])
def test_auth_can_be_rewritten_to_what_smtpd_knows(value):
    assert answered(Guard(), asked("auth"), rewrite(value)) == b"rewrite|" + value.encode()


@pytest.mark.parametrize("value", ["new", "XOAUTH2 AGE=", "AGE=", " PLAIN AGE=", "PLAIN\tAGE="])
def test_a_method_that_smtpd_would_log_with_the_password_is_not_sent(value):
    with pytest.raises(DecisionError, match="takes PLAIN or LOGIN"):
        answered(Guard(), asked("auth"), rewrite(value))


# Length of answers


@pytest.mark.parametrize(("version", "most"), [("0.6", 1_997), ("0.7", 16_000)])
def test_an_answer_is_as_long_as_the_server_takes(version, most):
    fitting = rewrite("x" * (most - len("rewrite|")))
    assert len(answered(Guard(), asked("ehlo", version), fitting)) == most
    with pytest.raises(DecisionError, match="longer than smtpd takes"):
        Guard().answer(asked("ehlo", version), rewrite(fitting.value + "x"))


def test_brackets_count():
    with pytest.raises(DecisionError, match="longer than smtpd takes"):
        Guard().answer(asked("rcpt_to"), rewrite("x" * (16_000 - len("rewrite|"))))


@pytest.mark.parametrize(("version", "most"), [("0.6", 1_997), ("0.7", 16_000)])
def test_what_is_kept_for_commit_is_as_long_as_the_server_takes(version, most):
    _, stream = message(version)
    with pytest.raises(DecisionError, match="longer than smtpd takes"):
        Guard().decide_commit(stream, Decision("reject", "550 " + "x" * most))
    assert stream.outcome is None


# Data lines


def test_data_lines_are_written_with_session_and_token():
    _, stream = message()
    assert Guard().data(stream, [b"a", b""]) == (
        b"filter-dataline|%b|%b|a\nfilter-dataline|%b|%b|\n" % (SID, TOKEN, SID, TOKEN)
    )


def test_version_0_4_wants_the_token_first_in_data_lines():
    _, stream = message("0.4")
    assert Guard().data(stream, [b"a"]) == b"filter-dataline|%b|%b|a\n" % (TOKEN, SID)


def test_the_final_dot_is_written_once():
    guard = Guard()
    _, stream = message()
    out = guard.data(stream, [b"a"], True)
    assert out == b"filter-dataline|%b|%b|a\nfilter-dataline|%b|%b|.\n" % ((SID, TOKEN) * 2)
    assert not stream.open
    assert guard.data(stream, [b"b"], True) == b""
    assert guard.data(stream, []) == b""


def test_an_empty_message_is_its_dot():
    _, stream = message()
    assert Guard().data(stream, [], True) == b"filter-dataline|%b|%b|.\n" % (SID, TOKEN)


@pytest.mark.parametrize(
    "line", [b"..", b" .", b"a|.", b"|.", b"x\r", b".\r", b"\xff", b"...", b"a|.|.", b"\x01"]
)
def test_lines_that_only_look_odd_pass(line):
    _, stream = message()
    assert Guard().data(stream, [b"a", line]).endswith(b"|%b|%b\n" % (TOKEN, line))
    assert not stream.damaged


@pytest.mark.parametrize("line", [b".", b"two\nlines", b"\n", b"nul\0", b"x" * 63_901])
def test_a_line_that_cannot_pass_is_left_out_and_commit_refuses(line):
    guard = Guard()
    session, stream = message()
    out = guard.data(stream, [b"a", line, b"b"], True)
    assert [part.rpartition(b"|")[2] for part in out.splitlines()] == [b"a", b"b", b"."]
    assert stream.damaged
    call = next_of(session)
    guard.expect(call, 1.0, 0.0)
    assert answered(guard, call, PROCEED) == LINE_TOO_LONG.wire


@pytest.mark.parametrize(("version", "most"), [("0.6", 1_997), ("0.7", 63_900)])
def test_a_data_line_is_as_long_as_the_server_takes(version, most):
    _, stream = message(version)
    assert len(Guard().data(stream, [b"x" * most]).splitlines()) == 1
    assert not stream.damaged
    assert Guard().data(stream, [b"x" * (most + 1)]) == b""
    assert stream.damaged


def test_damage_at_the_beginning_refuses_at_the_end():
    guard = Guard()
    _, stream = message()
    guard.data(stream, [b"x" * 64_000])
    assert stream.outcome is None
    guard.data(stream, [b"fine"], True)
    assert stream.outcome == LINE_TOO_LONG


# Commit


def test_what_was_kept_for_commit_wins_over_the_handler():
    guard = Guard()
    session, stream = message()
    guard.decide_commit(stream, reject(552, "no"))
    call = next_of(session)
    guard.expect(call, 1.0, 0.0)
    assert answered(guard, call, report("fine")) == b"reject|552 no"


def test_the_first_refusal_stands():
    _, stream = message()
    guard = Guard()
    guard.decide_commit(stream, PROCEED)
    assert stream.outcome is None
    guard.decide_commit(stream, reject(552, "first"))
    guard.decide_commit(stream, disconnect(421, "second"))
    guard.decide_commit(stream, PROCEED)
    assert stream.outcome == reject(552, "first")


@pytest.mark.parametrize(
    "decision", [junk(), rewrite("x"), report("x"), Decision("reject", "250 ok")]
)
def test_only_a_refusal_can_be_kept_for_commit(decision):
    _, stream = message()
    with pytest.raises(DecisionError):
        Guard().decide_commit(stream, decision)
    assert stream.outcome is None


def test_what_was_kept_is_for_one_commit_only():
    guard = Guard()
    session, stream = message()
    guard.decide_commit(stream, reject(552, "no"))
    for expected in (b"reject|552 no", b"proceed"):
        call = next_of(session)
        guard.expect(call, 1.0, 0.0)
        assert answered(guard, call, PROCEED) == expected


def test_it_is_for_commit_and_no_other_phase():
    guard = Guard()
    session, stream = message()
    guard.decide_commit(stream, reject(552, "no"))
    call = next_of(session, "rset")
    guard.expect(call, 1.0, 0.0)
    assert answered(guard, call, PROCEED) == b"proceed"


# Deadlines


def test_a_request_expires_at_its_deadline_and_stays_owed():
    guard = Guard()
    call = asked()
    guard.expect(call, 5.0, 100.0)
    assert guard.expired(104.9) == []
    assert guard.expired(105.0) == [call]
    assert guard.expired(106.0) == [call]
    assert guard.is_owed(call)


def test_an_answered_request_does_not_expire():
    guard = Guard()
    call = asked()
    guard.expect(call, 5.0, 100.0)
    guard.answer(call, PROCEED)
    assert guard.expired(1e9) == []
    assert list(guard.owes()) == []


def test_deadlines_of_different_lengths_expire_each_at_its_time():
    guard = Guard()
    calls = [asked() for _ in range(4)]
    for call, deadline, now in zip(calls, (5.0, 60.0, 5.0, 0.5), (0, 0, 10, 10), strict=True):
        guard.expect(call, deadline, now)
    assert guard.expired(5.0) == [calls[0]]
    assert set(guard.expired(15.0)) == {calls[0], calls[2], calls[3]}
    assert set(guard.owes()) == set(guard.expired(60.0)) == set(calls)
