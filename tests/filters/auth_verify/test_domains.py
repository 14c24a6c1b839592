"""Names of domains, and the public suffix list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenfilter.filters._auth_verify.domains import SuffixList, a_labels, is_below

SUFFIXES = SuffixList(
    """
// a comment
com
co.uk
*.ck
!www.ck
公司.cn
github.io // a private one
""".splitlines()
)


@pytest.mark.parametrize(
    ("name", "organization"),
    [
        ("a.b.example.com", "example.com"),
        ("example.com", "example.com"),
        ("com", "com"),
        ("a.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("uk", "uk"),
        ("a.b.unknown", "b.unknown"),
        ("a.b.c.ck", "b.c.ck"),
        ("c.ck", "c.ck"),
        ("a.www.ck", "www.ck"),
        ("www.ck", "www.ck"),
        ("a.b.xn--55qx5d.cn", "b.xn--55qx5d.cn"),
        ("x.me.github.io", "me.github.io"),
    ],
)
def test_the_organization_by_the_list(name, organization):
    assert SUFFIXES.organization(name) == organization


def test_a_name_is_below_another_by_labels():
    assert is_below("a.example.com", "example.com")
    assert is_below("example.com", "example.com")
    assert not is_below("badexample.com", "example.com")


@pytest.mark.parametrize("text", ["", ".", "a..b", "-a.b", "a b", "a/b", "é" * 300, "\ud800.b"])
def test_what_is_no_name_is_told(text):
    with pytest.raises(ValueError, match="name"):
        a_labels(text)


def test_a_sharp_s_is_kept():
    assert a_labels("Straße.example") == "xn--strae-oqa.example"


@given(st.text())
def test_a_name_is_ascii_or_told(text):
    try:
        name = a_labels(text)
    except ValueError:
        return
    assert name.isascii()
    assert a_labels(name) == name
