"""The guard's short ways write what its careful ones do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from greenfilter.protocol import PHASES, PROCEED, Call, Guard, Session, Stream

SID, TOKEN = b"0123456789abcdef", b"fedcba9876543210"
VERSIONS = st.sampled_from([b"0.4", b"0.5", b"0.6", b"0.7"])
LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b".", b"..", b"a", b"a\nb", b"a|.", b"|.", b"\0", b"x\r"]),
        st.integers(1_990, 2_000).map(lambda size: b"x" * size),
        st.integers(63_895, 63_905).map(lambda size: b"x" * size),
        st.binary(max_size=5),
    ),
    max_size=6,
)


def request(version: bytes, wire: bytes, parameter: bytes) -> Call:
    ids = TOKEN + b"|" + SID if version == b"0.4" else SID + b"|" + TOKEN
    line = b"|".join([b"filter", version, b"1.0", b"smtp-in", wire, ids, parameter])
    return Call(Session(SID), PHASES[wire.decode().replace("-", "_")], line, line.rindex(ids) + 34)


@given(
    VERSIONS,
    st.sampled_from([name.wire.encode() for name in PHASES.values() if name.wire != "commit"]),
    st.binary(max_size=20).filter(lambda value: b"\n" not in value),
    st.booleans(),
)
def test_a_plain_proceed(version, wire, parameter, owed):
    short, careful = Guard(), Guard()
    calls = request(version, wire, parameter), request(version, wire, parameter)
    if owed:
        short.expect(calls[0], 30.0, 0.0)
        careful.expect(calls[1], 30.0, 0.0)
    for _ in range(2):
        assert short.proceed(calls[0]) == careful.answer(calls[1], PROCEED)
    assert (calls[0].line, list(short.owes())) == (calls[1].line, list(careful.owes()))


@given(VERSIONS, LINES)
def test_lines_of_a_message(version, lines):
    line = b"filter|%b|1.0|smtp-in|data-line|" % version
    short, careful = (Stream(Session(SID), TOKEN, line) for _ in range(2))
    guard, limit = Guard(), 63_900 if version == b"0.7" else 1_997
    assert guard.data(short, lines) == guard._only_legal(careful, lines, limit)
    assert short.damaged == careful.damaged
