"""Decisions: what may be said, and how it looks on the wire."""

import pytest

from greenfilter.errors import DecisionError
from greenfilter.protocol import (
    DROP,
    JUNK,
    MAX_REPLY_BYTES,
    PROCEED,
    Decision,
    disconnect,
    junk,
    proceed,
    reject,
    report,
    rewrite,
)


@pytest.mark.parametrize(
    ("decision", "wire"),
    [
        (proceed(), b"proceed"),
        (junk(), b"junk"),
        (reject(550, "no"), b"reject|550 no"),
        (reject(550, "listed", enhanced="5.7.1"), b"reject|550 5.7.1 listed"),
        (reject(450, "no | thanks"), b"reject|450 no | thanks"),
        (disconnect(421, "bye", enhanced="4.3.0"), b"disconnect|421 4.3.0 bye"),
        (rewrite("<a@example.org> SIZE=1"), b"rewrite|<a@example.org> SIZE=1"),
        (rewrite("é|\udcff"), b"rewrite|\xc3\xa9|\xff"),
        (report("seen"), b"report|seen"),
    ],
)
def test_a_decision_looks_like_this_on_the_wire(decision, wire):
    assert decision.wire == wire


@pytest.mark.parametrize("make", [reject, disconnect])
@pytest.mark.parametrize("code", [399, 600, 250, 354, 0, -550, "550", 550.0, None, True])
def test_a_reply_takes_a_code_from_400_to_599_only(make, code):
    with pytest.raises(DecisionError, match="400 to 599"):
        make(code, "no")


@pytest.mark.parametrize("make", [reject, disconnect])
@pytest.mark.parametrize(
    "enhanced", ["4.7.1", "5.7", "5.7.1 ", "5.1234.1", "5.7.1\n", "", 5.7, "x", "5.\u0667.1"]
)
def test_an_enhanced_code_is_one_of_the_same_class(make, enhanced):
    with pytest.raises(DecisionError, match="enhanced"):
        make(550, "no", enhanced=enhanced)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("two\r\nlines", b"two  lines"),
        ("nul\0", b"nul"),
        ("tab\tstays", b"tab\tstays"),
        ("ümlaut and \x1b[31m", b"?mlaut and ?[31m"),
        ("  spaces  ", b"spaces"),
        ("", b"Refused"),
        ("\r\n", b"Refused"),
        ("\udcff\ud800", b"??"),
    ],
)
def test_reply_text_becomes_printable_ascii_on_one_line(text, sent):
    assert reject(550, text).wire == b"reject|550 " + sent


def test_a_long_reply_is_cut_to_what_a_reply_line_may_hold():
    assert len(reject(550, "x" * 9999, enhanced="5.7.1").value) == MAX_REPLY_BYTES


@pytest.mark.parametrize("text", [None, b"bytes", 5])
def test_a_text_that_is_no_str_is_refused(text):
    with pytest.raises(DecisionError, match="str"):
        reject(550, text)


@pytest.mark.parametrize("value", ["", None, b"x", "a\nb", "a\rb", "a\0b", "\ud800"])
def test_rewrite_refuses_what_cannot_be_sent(value):
    with pytest.raises(DecisionError):
        rewrite(value)


@pytest.mark.parametrize("text", ["", " \r\n"])
def test_report_needs_a_text(text):
    with pytest.raises(DecisionError):
        report(text)


def test_a_decision_does_not_change():
    decision = reject(550, "no")
    with pytest.raises(AttributeError):
        decision.value = "250 ok"
    assert decision.wire == b"reject|550 no"


def test_decisions_are_equal_when_they_say_the_same():
    assert reject(550, "no") == reject(550, "no") != disconnect(550, "no")
    assert len({reject(550, "no"), reject(550, "no"), PROCEED, proceed()}) == 2
    assert junk() is JUNK
    assert Decision("proceed") == PROCEED


def test_decisions_show_themselves_as_they_are_written():
    assert [repr(d) for d in (reject(550, "no"), PROCEED, DROP)] == [
        "reject('550 no')",
        "proceed()",
        "DROP",
    ]
