"""Globs and regular expressions of rules, hostile ones too."""

from __future__ import annotations

import time

import pytest

from greenfilter.filters._headers.addresses import map_field
from greenfilter.filters._headers.patterns import MOST_CHARS, MOST_SECONDS, Budget, Pattern, TooSlow

SLOW = "/a*a?a?a?a?b/"


def matches(pattern: str, value: str) -> bool:
    budget = Budget()
    with budget.spent():
        return Pattern(pattern).matches(value, budget)


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("*sale*", "The big SALE", True),
        ("sale", "The big sale", False),
        ("a?c", "abc", True),
        ("[a]*", "[a] b", True),
        ("[a]*", "a b", False),
        ("/sale/", "The big SALE!", True),
        ("/^sale$/", "sale!", False),
        ("/", "/", True),
        (f"/^a{{{MOST_CHARS}}}/", "a" * MOST_CHARS, True),
        ("/b/", "a" * MOST_CHARS + "b", False),
        ("*b", "a" * MOST_CHARS + "b", True),
    ],
)
def test_what_a_pattern_matches(pattern: str, value: str, expected: bool) -> None:
    assert matches(pattern, value) is expected


def test_what_is_beyond_the_limit_of_a_replacement_stays() -> None:
    value = "a" * MOST_CHARS + "aa"
    budget = Budget()
    with budget.spent():
        assert Pattern("/a/").replaced(value, "b", budget) == "b" * MOST_CHARS + "aa"


def test_many_patterns_together_have_one_budget_of_processor_time() -> None:
    slow, quick, budget = Pattern(SLOW), Pattern("/x/"), Budget()
    started = time.thread_time()

    def match_often() -> None:
        for _ in range(10_000):
            with budget.spent():  # in as many commands
                slow.matches("a" * MOST_CHARS, budget)
                quick.matches("a", budget)

    with pytest.raises(TooSlow) as caught:
        match_often()
    assert MOST_SECONDS <= time.thread_time() - started < 3 * MOST_SECONDS
    assert caught.value.pattern == SLOW
    with pytest.raises(TooSlow), budget.spent():
        quick.matches("a", budget)


def test_what_others_take_does_not_count() -> None:
    budget = Budget()
    with budget.spent():
        Pattern("/x/").matches("a", budget)
    started = time.thread_time()
    while time.thread_time() - started < MOST_SECONDS:
        pass
    with budget.spent():
        assert Pattern("/x/").matches("x", budget)


@pytest.mark.parametrize(
    "source",
    [
        "(a+)+$",
        "(a|aa)+$",
        "(a?a?)*$",
        "(a*?)*?$",
        "a?" * 30 + "a" * 30,
        "a*a*a*b",
        "^a*a*a*b",
        "x(?=a*a*a*b)",
        "x(?!(a+)+b)",
        "(.)(?(1)(a+)+|b)c",
        "(?:(?:){99999}){99999}b",
        r"(?:(?:\b){99999}){99999}b",
        "(?>(a+)+)b",
        "((a{1,9}){1,9}){1,9}b",
        "(?<=a+)x",
    ],
)
def test_an_expression_that_could_take_long_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"could take too long|is not a regular expression"):
        Pattern(f"/{source}/")


@pytest.mark.parametrize("pattern", ["/a*b/", "/^a*a*b/", "/(a*)\\1b/", "*a" * 100 + "b"])
def test_what_is_accepted_takes_no_long_time(pattern: str) -> None:
    started = time.process_time()
    assert not matches(pattern, "a" * 100_000)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("value", "changed"),
    [
        ("a@x", "NEW"),
        ("Anna <a@x>", "Anna <NEW>"),
        ('"A, <b@x>" < a@x > (c@x)', '"A, <b@x>" < NEW > (c@x)'),
        ("a@x (Anna), b@x", "NEW (Anna), NEW"),
        ("us: a@x, B <b@x>;", "us: NEW, B <NEW>;"),
        ('"a b"@x', "NEW"),
        ("a@x b@x", "a@x b@x"),
        ("<a@x> <b@x>", "<a@x> <b@x>"),
        ("<@r:a@x>", "<@r:a@x>"),
        ('"open <a@x>', '"open <a@x>'),
        ("", ""),
        ("anna", "anna"),
        ("none: ;", "none: ;"),
    ],
)
def test_addresses_of_a_field_are_changed_and_nothing_else(value: str, changed: str) -> None:
    assert map_field(value, lambda _: "NEW") == changed
