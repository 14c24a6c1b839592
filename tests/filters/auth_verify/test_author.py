"""Who wrote a mail, by its From field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenfilter.filters._auth_verify.author import find_authors


@pytest.mark.parametrize(
    ("field", "domains"),
    [
        ("a@example.com", ["example.com"]),
        ("A <a@Example.COM.>", ["example.com"]),
        ("A <@relay.example,@b.example:a@example.com>", ["example.com"]),
        ('"x, y@evil.example" <a@example.com>', ["example.com"]),
        ("a @ example . com", ["example.com"]),
        ("(a@evil.example) a@example.com (b@evil.example)", ["example.com"]),
        ("a@(comment)example.com", ["example.com"]),
        ("(an open ( and nested) comment) a@example.com", ["example.com"]),
        ('"quoted @evil.example"@example.com', ["example.com"]),
        ("Us: a@example.com, B <b@example.net>;", ["example.com", "example.net"]),
        ("Us: ; , a@example.com", ["example.com"]),
        ("a@example.com, , b@EXAMPLE.com", ["example.com"]),
        ("a@example.com; b@example.net", ["example.com", "example.net"]),
        ("<a@example.com> <b@example.net>", ["example.com", "example.net"]),
        ("A <a@example.com", ["example.com"]),
        ('"never closed <a@example.com>, b@example.net', None),
        ("a@bücher.example", ["xn--bcher-kva.example"]),
        ("a@x@example.com", ["example.com"]),
        ("a@b@", None),
        ("a@example..com", None),
        ("a@[192.0.2.1]", None),
        ("alice", None),
        ("A <>", None),
        ("undisclosed:;", None),
        ("", None),
        ("a@" + "x" * 64 + ".example", None),
        ("a@" + "é" * 5000 + ".example", None),
        ("a@example.com\0", None),
    ],
)
def test_the_domains_of_a_field(field, domains):
    found = find_authors([field])
    if domains is None:
        assert found.problem
        assert found.domains == []
    else:
        assert found == (domains, "", False)


def test_all_fields_count():
    found = find_authors(["a@example.com", "b@example.net"])
    assert found == (["example.com", "example.net"], "", False)


def test_no_field_and_a_huge_one_are_told():
    assert find_authors([]) == ([], "no From field", False)
    assert find_authors(["a@example.com, " * 10_000]) == (
        ["example.com"],
        "the From field is too long",
        True,
    )
    assert find_authors(["x" * 70_000 + " <a@example.com>"]) == (
        [],
        "the From field is too long",
        True,
    )


@pytest.mark.parametrize("other", ["x", "x@y..z", "<x>", "a@[192.0.2.1]"])
def test_a_bad_address_does_not_hide_the_domains_of_the_others(other):
    for field in (f"a@example.com, {other}", f"{other}, A <a@example.com>"):
        found = find_authors([field])
        assert found.domains == ["example.com"]
        assert found.problem


@given(st.text(alphabet='()<>,:;@"\\ .a\té'))
def test_no_field_raises_anything_else(field):
    found = find_authors([field])
    assert found.domains or found.problem


@given(st.text(alphabet='()<>,:;@"\\ .a'))
def test_an_address_behind_a_comma_is_never_hidden_by_what_is_closed_before_it(text):
    """A quoted string hides nothing that follows it."""
    quoted = '"' + text.replace("\\", "").replace('"', "") + '"'
    found = find_authors([f"{quoted} <x@one.example>, y@two.example"])
    assert found.domains == ["one.example", "two.example"]
