"""When a client has waited long enough. No store, no clock, no I/O.

An entry is a text: ``w FIRST`` for who was told to come again, ``p LAST`` for who has done so; both
are seconds since the epoch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

# What changes from one message of the same sender to the next (BATV, SRS, VERP).
_BATV = re.compile(r"^(prvs|btv1)=+[0-9a-z]{6,14}=+", re.I)
_SRS0 = re.compile(r"^srs0[=+-][^=]*=[^=]*=", re.I)
_SRS1 = re.compile(r"^srs1[=+-][^=]*=([^=]+)==[^=]*=[^=]*=", re.I)
_EXTENSION = re.compile(r"(?<=.)\+.*")
_NUMBER = re.compile(r"\d+")
# An entry that is in use is written again this often at most.
_REFRESH_SECONDS = 3600.0


@dataclass(frozen=True)
class Times:
    """How long things take, in seconds.

    Args:
        delay: that a client has to wait at least.
        window: in which it has to come again, counted from its first try.
        lifetime: that an entry is kept after it was used last.
    """

    delay: float = 300.0
    window: float = 2 * 86_400.0
    lifetime: float = 36 * 86_400.0


@dataclass(frozen=True)
class Verdict:
    """What becomes of a recipient.

    Attributes:
        passed: it is let in.
        wait: seconds after which it would be.
        known: it was let in before; else it has just waited long enough, or has to wait.
    """

    passed: bool
    wait: float = 0.0
    known: bool = False


def judge(
    entries: Sequence[str | None], times: Times, now: float
) -> tuple[list[str | None], Verdict]:
    """Decide about one try.

    Args:
        entries: what is kept under each key of the try: that of its network and, where SPF says
            that it comes from the sender's domain, that of the domain. Any of them will do.
        times: how long things take.
        now: seconds since the epoch.

    Returns:
        What to keep under these keys, and the verdict.
    """
    found = [_read(entry, times, now) for entry in entries]
    last = max((at for state, at in found if state == "p"), default=None)
    if last is not None:
        return _passed(entries, found, now), Verdict(True, known=True)
    first = min((at for state, at in found if state == "w"), default=now)
    # Who comes at its first try with a delay of 0 has not come again.
    came_again = any(state == "w" for state, _ in found)
    if came_again and now - first >= times.delay:
        return _passed(entries, found, now), Verdict(True)
    wait = max(0.0, first + times.delay - now)
    return [_write("w", first)] * len(entries), Verdict(False, wait)


def _passed(
    entries: Sequence[str | None], found: Sequence[tuple[str, float]], now: float
) -> list[str | None]:
    return [
        entry if state == "p" and now - at < _REFRESH_SECONDS else _write("p", now)
        for entry, (state, at) in zip(entries, found, strict=True)
    ]


def _read(entry: str | None, times: Times, now: float) -> tuple[str, float]:
    """Return state and time of an entry; an empty state where there is none, or none any more."""
    state, _, text = (entry or "").partition(" ")
    try:
        at = float(text)
    except ValueError:
        return "", 0.0
    limit = {"w": times.window, "p": times.lifetime}.get(state, 0.0)
    if not math.isfinite(at) or now - at >= limit:
        return "", 0.0
    return state, min(at, now)  # the clock may have been set back


def _write(state: str, at: float) -> str:
    return f"{state} {at:.3f}"


def network_of(ip: IPv4Address | IPv6Address, prefixes: tuple[int, int]) -> str:
    """Return the network that a client counts as.

    Args:
        ip: of the client; one that is IPv4 in IPv6's form counts as IPv4.
        prefixes: bits of the network in IPv4, and in IPv6.
    """
    ip = getattr(ip, "ipv4_mapped", None) or ip
    prefix = prefixes[0] if ip.version == 4 else prefixes[1]
    return str(ip_network((ip, prefix), strict=False))


def steady(address: str) -> str:
    """Return a sender without what changes from one of its messages to the next.

    Mailing lists, BATV and SRS write numbers, times and hashes into the local part; without this
    each message of a list would have to wait.
    """
    local, at, domain = address.rpartition("@")
    if not at:
        return address.lower()
    local = _BATV.sub(r"\1=", local)
    local = _SRS1.sub(r"srs=\1=", _SRS0.sub("srs=", local))
    local = _NUMBER.sub("#", _EXTENSION.sub("", local))
    return f"{local}@{domain}".lower()


def domain_of(address: str) -> str:
    """Return an address's domain in lower case, without a final dot; empty for the null sender."""
    return address.rpartition("@")[2].lower().rstrip(".") if "@" in address else ""
