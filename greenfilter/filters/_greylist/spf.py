"""Whether a client may send for a domain (SPF, RFC 7208), by pyspf."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import cachetools

from .._dns import Resolver
from .._spf import Query
from .rules import domain_of

_CACHE_SIZE = 20_000
_CACHE_SECONDS = 300.0
_QUESTIONS = 120  # 10 terms (RFC 7208, 4.6.4) of 10 names each, and what comes first
# Nobody sends from these. A policy that lets them pass says nothing of who sends.
_NOBODY = {4: "240.0.0.1", 6: "3fff:fff::1"}


class Spf:
    """Asks which domain vouches for a client.

    Args:
        resolver: answers.
        timeout: seconds for all questions about one message.
    """

    def __init__(self, resolver: Resolver, timeout: float) -> None:
        self._resolver = resolver
        self._timeout = timeout
        self._results: cachetools.TTLCache[tuple[str, str, str], str | None] = cachetools.TTLCache(
            _CACHE_SIZE, _CACHE_SECONDS
        )

    def domain(self, ip: IPv4Address | IPv6Address, sender: str, helo: str) -> str | None:
        """Return the domain that vouches for a client, None where none does. Switches greenlets.

        Args:
            ip: of the client.
            sender: its envelope sender; for the null sender its HELO name is asked for.
            helo: its HELO name.
        """
        key = (str(ip), sender, "" if sender else helo)
        if key not in self._results:
            self._results[key] = self._ask(*key)
        return self._results.get(key)

    def _ask(self, ip: str, sender: str, helo: str) -> str | None:
        domain = domain_of(sender) or helo.lower().rstrip(".")
        if "." not in domain or not domain.isascii():
            return None
        questions = self._resolver.message(_QUESTIONS, self._timeout)
        query = Query(ip, sender, helo, questions)
        try:
            if query.check()[0] != "pass":
                return None
            query.set_ip(_NOBODY[query.ipaddr.version])
            return None if query.check()[0] == "pass" else domain
        except Exception:  # pyspf raises much on records that make no sense
            return None
