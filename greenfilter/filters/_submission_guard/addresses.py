"""Addresses: those of a header field, and whether they belong to somebody."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from ..._mail.header_text import decode, to_a_labels
from .._smtpd_edits import scan, split_addresses

_WORD = re.compile(r'[^\s@<>"(),:;]+@[^\s@<>"(),:;]+')


def normal(address: str) -> str:
    """Return the form in which addresses are compared: lower case, the domain as A-labels.

    Raises:
        ValueError: it is not an address.
    """
    local, at, domain = address.strip().rpartition("@")
    if local.startswith('"') and local.endswith('"') and len(local) > 2:
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    elif re.search(r'[\s@<>"(),;:]', local):
        raise ValueError(f"{address!r} is not an address")
    if not (local and at and domain) or re.search(r'[\s@<>"(),;:\\]', domain):
        raise ValueError(f"{address!r} is not an address")
    return f"{local.lower()}@{to_a_labels(domain.rstrip('.'))}"


def in_field(value: str) -> list[str]:
    """List the addresses of a field, and what looks like one in a name without quotes.

    That is a display name or the name of a group, as it is read: with encoded words decoded.

    Raises:
        ValueError: it cannot be read; mail programs may show another address than one would think.
    """
    found: list[str] = []
    for part in split_addresses(value):
        found += _in_part(part)
    return found


def display_name(value: str) -> str:
    """Return what stands before the only address of a field; "" for any other form."""
    name, angle, rest = value.strip().rpartition("<")
    simple = angle and rest.count(">") == 1 and rest.endswith(">") and "@" not in decode("", name)
    return name.strip() if simple and len(split_addresses(value)) == 1 else ""


def _in_part(part: str) -> list[str]:
    *chars, (_, _, left_open) = scan(part, quoted_pairs=True)
    if left_open:
        raise ValueError(f"{part.strip()!r}: quotes or comments are left open")
    # What is quoted has no say in where the address is.
    text = "".join(char for _, char, _ in chars)
    bare = "".join("x" if quoted or char == '"' else char for _, char, quoted in chars)
    start, end = 0, len(text)
    if "<" not in bare[: bare.find(":") + 1] and ":" in bare:  # a group begins
        start = bare.index(":") + 1
    if bare.rstrip().endswith(";"):  # and ends
        end = bare.rindex(";")
    group, text, bare = bare[:start], text[start:end], bare[start:end]
    if not text.strip():
        return _shown_in(group)
    if "<" not in bare and ">" not in bare:
        return [*_shown_in(group), normal(text)]
    open_, close = bare.find("<"), bare.find(">")
    if bare.count("<") != 1 or bare.count(">") != 1 or close < open_ or bare[close + 1 :].strip():
        raise ValueError(f"{part.strip()!r} is not an address")
    # Both at once: an encoded word may have the colon in it.
    return [*_shown_in(group + bare[:open_]), normal(text[open_ + 1 : close])]


def _shown_in(name: str) -> list[str]:
    """List what looks like an address in a name, as mail programs show it."""
    return [normal(word) for word in _WORD.findall(decode("", name))]


class Owned:
    """The addresses of a user.

    Args:
        patterns: addresses, ``@example.org`` for a whole domain, or with ``*`` for any characters.
        delimiter: what follows it in a local part does not count; "" for none.
    """

    def __init__(self, patterns: Iterable[str], delimiter: str) -> None:
        self._delimiter = delimiter
        self._exact: dict[str, None] = {}
        self._globs: list[str] = []
        for pattern in patterns:
            if pattern.startswith("@"):
                pattern = f"*{pattern}"
            if "*" in pattern:
                self._globs.append(_normal_glob(pattern))
            else:
                self._exact[normal(pattern)] = None

    @property
    def first(self) -> str | None:
        """The address that others are rewritten to."""
        return next(iter(self._exact), None)

    def __contains__(self, address: str) -> bool:
        """Return whether an address, as :func:`normal` gives it, belongs to the user."""
        local, _, domain = address.rpartition("@")
        forms = {address}
        if self._delimiter and local.partition(self._delimiter)[0]:
            forms.add(f"{local.partition(self._delimiter)[0]}@{domain}")
        return any(form in self._exact or self._matches(form) for form in forms)

    def _matches(self, address: str) -> bool:
        return any(fnmatchcase(address, pattern) for pattern in self._globs)


def _normal_glob(pattern: str) -> str:
    """Prepare a pattern for fnmatch, to which brackets and question marks mean more."""
    local, at, domain = pattern.strip().lower().rpartition("@")
    if at and not domain.isascii():
        domain = ".".join(part if part == "*" else to_a_labels(part) for part in domain.split("."))
    return re.sub(r"([\[?])", r"[\1]", f"{local}{at}{domain}")
