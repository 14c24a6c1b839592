"""Domain names as DNS knows them, and organizational domains by the public suffix list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import idna

MAX_NAME = 253  # RFC 1035, 2.3.4, without the final dot
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")


def a_labels(domain: str) -> str:
    """Return a domain as DNS knows it: A-labels, lower case, without a final dot.

    IDNA 2008 decides (RFC 5890): a sharp s is kept, and not made two.

    Raises:
        ValueError: it is not a domain name.
    """
    name = domain if domain.isascii() else _mapped(domain)
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > MAX_NAME or not all(_LABEL.match(label) for label in labels):
        raise ValueError(f"{domain[:80]!r} is not a domain name")
    return name


def _mapped(domain: str) -> str:
    # A name is short: some of idna's checks take longer than linear time.
    if len(domain) > MAX_NAME:
        raise ValueError(f"{domain[:80]!r} is too long for a name")
    try:
        labels = idna.uts46_remap(domain, std3_rules=False).split(".")
        return ".".join(
            label if label.isascii() else idna.alabel(label).decode() for label in labels
        )
    except (idna.IDNAError, UnicodeError):
        raise ValueError(f"{domain[:80]!r} is not a domain name") from None


def is_below(name: str, parent: str) -> bool:
    """Return whether a name is ``parent`` or below it; both as :func:`a_labels` gives them."""
    return name == parent or name.endswith(f".{parent}")


def parents(name: str) -> Iterator[str]:
    """Yield a name and those above it, the longest first."""
    while name:
        yield name
        name = name.partition(".")[2]


class SuffixList:
    """The public suffix list (publicsuffix.org): below which names anybody can register one.

    Args:
        lines: of the file.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules: set[str] = set()
        for line in lines:
            rule = line.split(None, 1)[0] if line.strip() else ""
            if not rule or rule.startswith("//"):
                continue
            kind = "!" if rule[0] == "!" else "*." if rule.startswith("*.") else ""
            try:
                self._rules.add(kind + a_labels(rule.removeprefix(kind)))
            except ValueError:
                continue  # a rule that we do not understand

    def __len__(self) -> int:
        return len(self._rules)

    def organization(self, name: str) -> str:
        """Return the domain that was registered; the name itself if it is a public suffix."""
        below = ""
        for domain in parents(name):
            parent = domain.partition(".")[2]
            if f"!{domain}" in self._rules:
                return domain
            if domain in self._rules or f"*.{parent}" in self._rules or not parent:
                return below or name
            below = domain
        return name
