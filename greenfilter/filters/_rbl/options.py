"""The values of the options of ``rbl``. Needs no package, for ``--help``."""

from __future__ import annotations

import ipaddress
import math
import re
from typing import NamedTuple

from .._options import parse_seconds

NAMES = ("sender", "helo", "rdns")
LISTED = ipaddress.ip_network("127.0.0.0/8")  # RFC 5782, 2.1; anything else is no list's answer


class ZoneOptions(NamedTuple):
    """A list, as the options name it."""

    name: str
    weight: float = 1.0
    timeout: float | None = None
    """Seconds for a question; None for what all lists have."""
    shown: str = ""
    """The name that clients and the log are told; by default ours without a customer's key."""


class Code(NamedTuple):
    """What an answer such as 127.0.0.2 means; without a weight, the list's own counts."""

    name: str
    weight: float | None = None


def parse_number(text: str) -> float:
    """Parse a finite number: with another no sum would reach a threshold, or any would."""
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def parse_zone(text: str) -> ZoneOptions:
    """Parse a list from ``NAME[=WEIGHT[,SECONDS[,SHOWN]]]``."""
    name, _, rest = text.partition("=")
    weight, timeout, shown = [*rest.split(",", 2), "", ""][:3]
    # 253 octets (RFC 1035, 2.3.4) must hold an IPv6 client's 64 too.
    if len(name) > 189 or not re.fullmatch(r"([a-z0-9_-]{1,63}\.?)+", name, re.I):
        raise ValueError(text)
    if not re.fullmatch(r"[!-~ ]{0,189}", shown):
        raise ValueError(text)
    limit = parse_seconds(timeout) if timeout else None
    return ZoneOptions(name.rstrip(".").lower(), parse_number(weight or "1"), limit, shown)


def parse_code(text: str) -> tuple[tuple[str, str], Code]:
    """Parse a meaning from ``[ZONE/]ADDRESS=NAME[,WEIGHT]``."""
    where, _, meaning = text.partition("=")
    zone_name, _, address = where.rpartition("/")
    name, _, weight = meaning.partition(",")
    if not name or (ip := ipaddress.ip_address(address)) not in LISTED:
        raise ValueError(text)
    return (zone_name.rstrip(".").lower(), str(ip)), Code(
        name, parse_number(weight) if weight else None
    )


def parse_names(text: str) -> tuple[str, ...]:
    """Parse some of ``sender,helo,rdns``."""
    found = tuple(text.split(","))
    if not set(found) <= set(NAMES):
        raise ValueError(text)
    return found
