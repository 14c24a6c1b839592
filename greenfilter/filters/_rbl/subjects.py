"""What lists are asked about: the client's address, and the names that it comes with (RFC 5782)."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

from ..._mail.header_text import to_a_labels

if TYPE_CHECKING:
    from .._clients import Ip

DOMAIN = 0  # beside the versions of IP
# Underscores are not host names, and are in use; the last label of a name is not a number.
_NAME = re.compile(r"([a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{0,62}")
# RFC 5782, 5: no list may have the first entry, every list should have the second.
_TESTS = {
    4: ("127.0.0.1", "127.0.0.2"),
    6: ("::ffff:7f00:1", "::ffff:7f00:2"),
    DOMAIN: ("invalid", "test"),
}


class Subject(NamedTuple):
    """Somebody or something that a list may have."""

    what: str
    """``client``, or what name it is: ``sender``, ``helo``, ``rdns``."""
    shown: str
    entry: str
    """What stands before the list's own name in DNS."""
    family: int
    """4, 6 or DOMAIN: what kind of list has it, and by which test entries one is tested."""


def client(ip: Ip) -> Subject:
    """Make the subject of an address: reversed octets (RFC 5782, 2.1) or nibbles (2.4)."""
    entry = ip.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    return Subject("client", str(ip), entry, ip.version)


def domain(what: str, name: str | None) -> Subject | None:
    """Make the subject of a name; None if it is not one, such as a client's address."""
    try:
        text = to_a_labels((name or "").rstrip("."))
    except ValueError:
        return None
    return Subject(what, text, text, DOMAIN) if _NAME.fullmatch(text) else None


def tests(family: int) -> tuple[Subject, Subject]:
    """Return the entry that no list has, and the one that every list should have."""
    if family == DOMAIN:
        wrong, right = (Subject("test", text, text, DOMAIN) for text in _TESTS[DOMAIN])
    else:
        wrong, right = (
            client(ipaddress.ip_address(text))._replace(what="test", shown=text)
            for text in _TESTS[family]
        )
    return wrong, right
