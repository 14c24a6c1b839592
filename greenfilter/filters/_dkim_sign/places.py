"""Where private keys are. Needs no package, for ``--help``."""

from __future__ import annotations

import argparse
import os
import re
from typing import NamedTuple

from ..._mail.header_text import to_a_labels
from ...errors import GreenfilterError

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.I)  # RFC 6376, 3.5; RFC 5321, 4.1.2


class KeyProblem(GreenfilterError):
    """A key cannot be had; the text says which one, and why."""


class Place(NamedTuple):
    """A file with a private key, and where its public half is published."""

    domain: str
    selector: str
    path: str

    def __str__(self) -> str:
        """Name the key."""
        return f"{self.domain}:{self.selector}"


def place(text: str, directory: str = "") -> Place:
    """A key's place from ``DOMAIN:SELECTOR:FILE``.

    Args:
        text: says where.
        directory: that FILE is relative to.

    Raises:
        argparse.ArgumentTypeError: it is not of this form, or verifiers do not take its names.
    """
    domain, _, rest = text.partition(":")
    selector, _, path = rest.partition(":")
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not DOMAIN:SELECTOR:FILE")
    domain, selector = _published(domain, 2, "domain"), _published(selector, 1, "selector")
    if len(f"{selector}._domainkey.{domain}") > 253:
        raise argparse.ArgumentTypeError(
            f"{selector}._domainkey.{domain} is not a name in DNS: too long"
        )
    return Place(domain, selector, os.path.join(directory, path))


def _published(name: str, labels: int, what: str) -> str:
    """Return a domain or selector as A-labels, if verifiers take it (RFC 6376, 3.1 and 3.5)."""
    try:
        found = to_a_labels(name.rstrip(".")).split(".")
        if len(found) < labels or not all(map(_LABEL.fullmatch, found)):
            raise ValueError
        if labels > 1 and found[-1].isdigit():
            raise ValueError
    except ValueError:
        problem = f"{name!r}: verifiers take no such {what} (letters, digits, - within, and dots)"
        raise argparse.ArgumentTypeError(problem) from None
    return ".".join(found)
