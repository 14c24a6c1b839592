"""The values of the options of ``rbl``."""

from __future__ import annotations

import ipaddress
import math
import re

from .._options import parse_seconds
from .lists import Code
from .zone import LISTED, ZoneOptions

NAMES = ("sender", "helo", "rdns")


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
