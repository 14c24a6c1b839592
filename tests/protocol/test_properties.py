"""Whatever comes in, nothing but legal lines goes out."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenfilter.errors import DecisionError
from greenfilter.protocol import (
    EVENTS,
    JUNK,
    PHASES,
    PROCEED,
    Call,
    Chunk,
    Connection,
    Decision,
    Guard,
    Session,
    disconnect,
    reject,
    report,
    rewrite,
)
from greenfilter.protocol._stuffing import stuff, stuff_line, stuff_message, unstuff, unstuff_line
from tests.protocol.driver import TIME, Driver, request
from tests.protocol.legality import Illegal, Judge
from tests.testing.recordings import LOGS, lines

RECORDED = [
    [line for direction, line in lines(log.parts[0], log.stem) if direction == "<"]
    for log in LOGS
    if not log.name.startswith("line-")
]
VERSIONS = ["0.4", "0.5", "0.6", "0.7"]
ASKED = sorted(set(PHASES) - {"data_line"})


def many(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# What comes in

_SPLICES = st.one_of(
    st.binary(max_size=4),
    st.sampled_from(
        [b"|", b"\r", b"\n", b"\0", b".", b"0.4", b"0.6", b"data-line", b"commit", b"smtp-out"]
    ),
)


def _head(line: bytes) -> int:
    """Bytes of a data line's first word, version and time; none of any other line."""
    parts = line.split(b"|", 4)
    return sum(map(len, parts[:3])) + 3 if parts[4:] and parts[4].startswith(b"data-line|") else 0


@st.composite
def damaged_lines(draw: st.DrawFn) -> list[bytes]:
    """A part of a recording with lines changed, cut, repeated, lost, swapped and put in.

    The first word, version and time of data lines stay as they are: within a run of data lines
    they are not looked at.
    """
    recording = draw(st.sampled_from(RECORDED))
    start = draw(st.integers(0, max(0, len(recording) - 20)))
    found = list(recording[start : start + 60])
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(found) - 1)) if found else 0
        line = found[at] if found else b""
        least = _head(line)
        place = draw(st.integers(least, max(least, len(line))))
        match draw(st.sampled_from(["change", "change", "cut", "repeat", "lose", "swap", "add"])):
            case "change":
                width = draw(st.integers(0, 6))
                found[at : at + 1] = [line[:place] + draw(_SPLICES) + line[place + width :]]
            case "cut":
                found[at : at + 1] = [line[:place]]
            case "repeat":
                found.insert(at, line)
            case "lose":
                del found[at : at + 1]
            case "swap":
                found[at : at + 2] = reversed(found[at : at + 2])
            case "add":
                found.insert(at, draw(st.binary(max_size=40)))
    return found


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Data in pieces of these sizes, over and over."""
    pieces, start, index = [], 0, 0
    while start < len(data):
        size = sizes[index % len(sizes)]
        pieces.append(data[start : start + size])
        start, index = start + size, index + 1
    return pieces


SIZES = st.lists(st.integers(1, 4000), min_size=1, max_size=8)


# What is decided

TEXT = st.one_of(
    st.text(max_size=30),
    st.text(st.characters(), max_size=30),  # with lone surrogates
    st.text(max_size=3000),
    st.just("x" * 20_000),
)
RAW = st.builds(
    Decision,
    st.one_of(
        st.sampled_from(["proceed", "junk", "reject", "disconnect", "rewrite", "report", "", "x"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    ),
    st.one_of(
        st.just(""),
        st.just("550 no"),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
        st.text("45 0\r\n\0|<>.é", max_size=12),
    ),
)
MADE = st.one_of(
    st.just(PROCEED),
    st.just(JUNK),
    st.builds(reject, st.integers(400, 599), TEXT),
    st.builds(disconnect, st.integers(400, 599), TEXT),
    st.builds(rewrite, st.text("abc<>@ |é", min_size=1, max_size=40)),
    st.just(report("seen")),
)


def judged(pieces: list[bytes], decisions: list[Decision]) -> Judge:
    """Feed the pieces to a driver that decides in turn, and check every line it writes."""
    judge = Judge()
    turn = iter(range(1 << 30))
    driver = Driver(lambda call: decisions[next(turn) % len(decisions)])
    for piece in pieces:
        judge.asks(piece)
        judge.told(driver.feed(piece))
    for session in driver.connection.sessions.values():
        assert session.tx is None or isinstance(session.tx.rcpt_to, list)
    for call in driver.calls:
        if call.token is not None:
            assert len(call.values()) == len(call.hook.fields)
        assert call.time == call.time or b"nan" in call.line.lower()
    return judge


@many(300)
@given(st.binary(max_size=400), SIZES)
def test_random_bytes_are_survived(data, sizes):
    judged(cut(data, sizes), [PROCEED])


@many(300)
@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [
                    b"filter", b"report", b"config", b"0.7", b"0.4", b"", TIME, b"smtp-in",
                    b"smtp-out", b"data-line", b"commit", b"mail-from", b"tx-mail", b"tx-begin",
                    b"link-auth", b"link-connect", b"link-disconnect", b"tx-commit", b"ready",
                    b"0123456789abcdef", b"fedcba9876543210", b"01234567", b"ok", b".", b"9" * 5000,
                ]
            ),
            max_size=9,
        ),
        max_size=30,
    ),
    SIZES,
)  # fmt: skip
def test_known_words_in_any_order_are_survived(words, sizes):
    data = b"".join(b"|".join(line) + b"\n" for line in words)
    judged(cut(data, sizes), [PROCEED])


@many(600)
@given(damaged_lines(), SIZES, st.lists(st.one_of(MADE, RAW), min_size=1, max_size=5))
def test_only_legal_lines_go_out_whatever_comes_in_and_whatever_is_decided(found, sizes, decisions):
    judged(cut(b"".join(line + b"\n" for line in found), sizes), decisions)


@many(150)
@given(st.sampled_from(RECORDED), SIZES, st.lists(MADE, min_size=1, max_size=5))
def test_every_request_of_a_recording_is_answered_whatever_is_decided(found, sizes, decisions):
    data = b"".join(line + b"\n" for line in found)
    assert judged(cut(data, sizes), decisions).unanswered() == 0


# Chunking


def parsed(pieces: list[bytes]) -> tuple[list[object], list[str]]:
    """What a connection makes of the pieces: the queue of each session, and the problems."""
    problems: list[str] = []
    sessions: list[Session] = []
    connection = Connection(
        deliver=[(sub, event.wire) for sub in ("smtp-in", "smtp-out") for event in EVENTS.values()],
        on_problem=lambda problem: problems.append(str(problem)),
    )
    for piece in pieces:
        sessions += connection.receive(piece)
    return [(one.sid, one.incoming, one.closed, items(one)) for one in sessions], problems


def items(session: Session) -> list[list[object]]:
    """The queue of a session, with chunks that follow each other in one message joined."""
    found: list[list[object]] = []
    for item in session.queue:
        if not isinstance(item, Chunk):
            found.append([None, item.line if isinstance(item, Call) else item])
        elif found and found[-1][0] is item.stream:
            found[-1][1:] = [found[-1][1] + item.lines, item.ended]
        else:
            found.append([item.stream, item.lines, item.ended])
    return [entry[1:] for entry in found]


@many(400)
@given(damaged_lines(), SIZES)
def test_the_parse_does_not_depend_on_how_the_input_was_cut(found, sizes):
    data = b"".join(line + b"\n" for line in found)
    assert parsed(cut(data, sizes)) == parsed([data])


@many(200)
@given(st.binary(max_size=300), SIZES)
def test_random_bytes_parse_the_same_however_they_were_cut(data, sizes):
    assert parsed(cut(data, sizes)) == parsed([data])


# Decisions


def said_at(phase: str, version: str, decision: Decision) -> Judge:
    """Answer one request and judge the line.

    Raises:
        DecisionError: the guard refused the decision.
    """
    judge, guard, line = Judge(), Guard(), request(PHASES[phase].wire, version=version)
    (session,) = Connection().receive(line)
    call = session.queue.popleft()
    guard.expect(call, 1.0, 0.0)
    judge.asks(line)
    answer = guard.answer(call, decision)
    assert answer is not None
    assert answer.count(b"\n") == 1
    judge.told(answer)
    assert judge.unanswered() == 0
    return judge


@many(400)
@given(
    st.sampled_from(ASKED),
    st.sampled_from(VERSIONS),
    st.sampled_from([reject, disconnect]),
    st.integers(400, 599),
    TEXT,
)
def test_any_text_of_a_refusal_gives_one_legal_line_at_every_phase(
    phase, version, make, code, text
):
    said_at(phase, version, make(code, text, enhanced=f"{code // 100}.7.1"))


@many(400)
@given(st.sampled_from(ASKED), st.sampled_from(VERSIONS), st.sampled_from([rewrite, report]), TEXT)
def test_any_other_text_gives_one_legal_line_or_is_refused(phase, version, make, text):
    try:
        said_at(phase, version, make(text))
    except DecisionError:
        return


@many(600)
@given(st.sampled_from(ASKED), st.sampled_from(VERSIONS), RAW)
def test_any_decision_at_all_gives_one_legal_line_or_is_refused(phase, version, decision):
    try:
        said_at(phase, version, decision)
    except DecisionError:
        return


@pytest.mark.parametrize("phase", ASKED)
@pytest.mark.parametrize("version", VERSIONS)
def test_proceed_is_legal_everywhere(phase, version):
    said_at(phase, version, PROCEED)


# Data lines

LINE = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"", b".", b"..", b". ", b".\r", b"|.", b"\n", b"a\nb", b"\0"]),
    st.integers(1990, 2005).map(lambda n: b"x" * n),
    st.integers(63_890, 63_910).map(lambda n: b"x" * n),
)
FREE = st.lists(st.binary(max_size=30).filter(lambda x: b"\n" not in x and b"\0" not in x))


@many(300)
@given(FREE)
def test_a_message_comes_back_from_the_wire_as_it_was(content):
    wire = stuff(content)
    assert b"." not in wire
    assert unstuff(wire) == content
    assert [stuff_line(line) for line in content] == wire
    assert [unstuff_line(line) for line in wire] == content
    lines = [line.replace(b"\r", b" ") for line in content]
    whole = b"".join(line + b"\r\n" for line in lines)
    assert stuff_message(whole) == b"".join(line + b"\r\n" for line in stuff(lines))
    out = Driver().feed(b"".join(request("data-line", line) for line in [*wire, b"."]))
    back = [line.split(b"|", 3)[3] for line in out.split(b"\n")[:-1]]
    assert back.pop() == b"."
    assert unstuff(back) == content


@many(400)
@given(st.sampled_from(VERSIONS), st.lists(st.lists(LINE, max_size=4), max_size=4))
def test_whatever_is_written_to_a_message_is_legal_or_refuses_it(version, parts):
    judge, guard = Judge(), Guard()
    asked = request("data-line", b"first", version=version)
    judge.asks(asked)
    (session,) = Connection().receive(asked)
    stream = session.queue.popleft().stream
    out = b"".join([guard.data(stream, part) for part in parts] + [guard.data(stream, [], True)])
    judge.told(out)
    assert out.count(b"|.\n") >= 1
    assert not any(judge.open.values())
    limit = 63_900 if version == "0.7" else 1_997
    wanted = [line for part in parts for line in part]
    bad = [x for x in wanted if len(x) > limit or x == b"." or b"\n" in x or b"\0" in x]
    assert stream.damaged == bool(bad)
    assert (stream.outcome is not None) == bool(bad)
    if not bad:
        assert out == b"".join(stream.head + line + b"\n" for line in [*wanted, b"."])


# The judge itself


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"proceed\n",
        b"filter-result|0123456789abcdef|fedcba9876543210|proceed|x\n",
        b"filter-result|0123456789abcdef|fedcba9876543210|proceed\r\n",
        b"filter-result|0123456789abcdef|fedcba9876543210|reject\n",
        b"filter-result|0123456789abcdef|fedcba9876543210|proceed",
        b"filter-result|fedcba9876543210|0123456789abcdef|proceed\n",
        b"filter-dataline|0123456789abcdef|fedcba9876543210|x\n",
        b"report|0.7|1|smtp-in|timeout|0123456789abcdef\n",
    ],
)
def test_the_judge_refuses_what_kills_smtpd(line):
    judge = Judge()
    judge.asks(b"filter|0.7|1|smtp-in|ehlo|0123456789abcdef|fedcba9876543210|x\n")
    with pytest.raises(Illegal):
        judge.told(line)
