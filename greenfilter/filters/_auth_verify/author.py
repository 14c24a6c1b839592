"""Whose mail it is: the domains in the From field (RFC 5322, 3.4 and 4.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .domains import a_labels

MAX_CHARACTERS = 64 << 10  # of all From fields
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|\\.?|[()<>,:;@]|[^"()<>,:;@\\]+', re.DOTALL)


class Authors(NamedTuple):
    """Who wrote a message, as far as its From fields say so.

    Attributes:
        domains: each once, in A-labels.
        problem: what is wrong with the fields, "" if nothing is.
        is_cut: there is more in the fields than was looked at.
    """

    domains: list[str]
    problem: str
    is_cut: bool = False


def find_authors(fields: list[str]) -> Authors:
    """Find the domains of all addresses, members of groups too.

    Args:
        fields: the values of all From fields.

    Returns:
        The domains, and what is wrong with the fields. One bad address does not hide the domains
        of the others: their policies still hold.
    """
    problem = "" if fields else "no From field"
    found: dict[str, None] = {}
    room, is_cut = MAX_CHARACTERS, False
    for field in fields:
        if len(field) > room:
            problem, is_cut = "the From field is too long", True
        for address in _addresses(field[:room]):
            try:
                found[_domain_of(address)] = None
            except ValueError as error:
                problem = problem or str(error)
        room = max(0, room - len(field))
    return Authors(list(found), problem or ("" if found else "no address in From"), is_cut)


def _domain_of(address: list[str]) -> str:
    if "@" not in address:
        raise ValueError("an address without a domain in From")
    at = len(address) - address[::-1].index("@")
    try:
        return a_labels("".join("".join(address[at:]).split()))
    except ValueError as error:
        raise ValueError(f"From: {error}") from None


def _addresses(field: str) -> Iterator[list[str]]:
    """Yield addresses as lists of tokens, without comments and display names.

    What stands between angle brackets is the address. Several in one entry all count: who reads
    the mail may see any of them.
    """
    plain: list[str] = []
    angle: list[str] | None = None
    seen_angle = False
    for token in _without_comments(field):
        if angle is not None:
            if token == ">":
                if any(map(str.strip, angle)):
                    yield angle
                angle = None
            elif token == ":":  # behind a route
                angle = []
            else:
                angle.append(token)
        elif token == "<":
            angle, seen_angle = [], True
        elif token in ",;":
            if not seen_angle and any(map(str.strip, plain)):
                yield plain
            plain, seen_angle = [], False
        elif token == ":":  # the name of a group ends
            plain = []
        else:
            plain.append(token)
    if angle:
        yield angle
    elif not seen_angle and any(map(str.strip, plain)):
        yield plain


def _without_comments(field: str) -> Iterator[str]:
    depth = 0
    # In a comment quotes are not quotes, so it is read by itself.
    position = 0
    while position < len(field):
        match = (_IN_COMMENT if depth else _TOKEN).match(field, position)
        assert match is not None
        token, position = match[0], match.end()
        if token == "(":
            depth += 1
        elif token == ")" and depth:
            depth -= 1
        elif not depth:
            yield token


_IN_COMMENT = re.compile(r"\\.?|[()]|[^()\\]+", re.DOTALL)
