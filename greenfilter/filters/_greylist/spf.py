"""Whether a client may send for a domain (SPF, RFC 7208), by pyspf and dnspython."""

from __future__ import annotations

import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import cachetools
import dns.exception
import dns.nameserver
import dns.resolver
import spf  # type: ignore[import-untyped]

from .rules import domain_of

_CACHE_SIZE = 20_000
_CACHE_SECONDS = 300.0
# Nobody sends from these. A policy that lets them pass says nothing of who sends.
_NOBODY = {4: "240.0.0.1", 6: "3fff:fff::1"}


class Spf:
    """Asks which domain vouches for a client.

    Args:
        servers: DNS servers instead of those of resolv.conf.
        timeout: seconds for all questions about one message.

    Raises:
        dns.exception.DNSException: resolv.conf names no server.
    """

    def __init__(self, servers: Sequence[dns.nameserver.Nameserver], timeout: float) -> None:
        self._timeout = timeout
        self._resolver = dns.resolver.Resolver(configure=not servers)
        self._resolver.nameservers = list(servers) or self._resolver.nameservers
        self._resolver.timeout = timeout / 2
        self._resolver.cache = dns.resolver.LRUCache()
        self._results: cachetools.TTLCache[tuple[str, str, str], str | None] = cachetools.TTLCache(
            _CACHE_SIZE, _CACHE_SECONDS
        )

    def domain(self, ip: IPv4Address | IPv6Address, sender: str, helo: str) -> str | None:
        """Give the domain that vouches for a client, None where none does. Switches greenlets.

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
        query = _Query(ip, sender, helo, self._resolver, self._timeout)
        try:
            if query.check()[0] != "pass":
                return None
            query.set_ip(_NOBODY[query.ipaddr.version])
            return None if query.check()[0] == "pass" else domain
        except Exception:  # pyspf raises much on records that make no sense
            return None


class _Query(spf.query):  # type: ignore[misc]
    """pyspf's query with our DNS: one resolver with its cache, and one deadline for all."""

    def __init__(
        self, ip: str, sender: str, helo: str, resolver: dns.resolver.Resolver, timeout: float
    ) -> None:
        super().__init__(ip, sender, helo)
        self._resolver = resolver
        self._deadline = time.monotonic() + timeout

    def dns(
        self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False
    ) -> list[Any]:
        """Answer a question of pyspf; in its own way for each type."""
        name = str(name).rstrip(".").lower()
        if not name or any(not 0 < len(label) < 64 for label in name.split(".")):
            return []
        if (name, qtype) not in self.cache:
            self.cache[name, qtype] = [_value(rdata) for rdata in self._resolve(name, qtype)]
        found: list[Any] = self.cache[name, qtype]
        if not found and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError("void lookup limit exceeded")
        return list(found)

    def _resolve(self, name: str, qtype: str) -> Sequence[Any]:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise spf.TempError("DNS: no answer in time")
        try:
            return list(self._resolver.resolve(f"{name}.", qtype, lifetime=left, search=False))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise spf.TempError(f"DNS: {error}") from None


def _value(rdata: Any) -> Any:
    kind = rdata.rdtype.name
    if kind == "MX":
        return rdata.preference, rdata.exchange.to_text(omit_final_dot=True)
    if kind == "PTR":
        return rdata.target.to_text(omit_final_dot=True)
    return rdata.strings if kind in ("TXT", "SPF") else rdata.address
