"""DNS out of a dict, as the suites write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dns.rdata
import dns.rdataclass
import dns.rdatatype
from dns.rdtypes.ANY.TXT import TXT

from greenfilter.filters._dns import Answer, DnsError, Questions

if TYPE_CHECKING:
    from collections.abc import Mapping


class TextQuestions(Questions):
    """TXT records of some names.

    Args:
        zone: name -> TXT values, or SERVFAIL, TIMEOUT, NXDOMAIN.

    Attributes:
        asked: each name once, in the order in which it was first asked for.
    """

    def __init__(self, zone: Mapping[str, Any]) -> None:
        self._zone = zone
        self.asked: list[str] = []

    def answer(self, name: str, type: str) -> Answer:
        if name not in self.asked:
            self.asked.append(name)
        found = self._zone.get(name)
        if found in ("SERVFAIL", "TIMEOUT"):
            raise DnsError(f"{name}: {found}")
        if found is None or found == "NXDOMAIN":
            below = any(known.endswith(f".{name}") for known in self._zone)
            return Answer((), found is None and below, 60.0)
        texts = [found] if isinstance(found, str) else found
        return Answer(tuple(map(txt, texts)) if type == "TXT" else (), True, 60.0)


def txt(text: str) -> TXT:
    data = text.encode()
    strings = [data[at : at + 255] for at in range(0, len(data), 255)] or [b""]
    return TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
