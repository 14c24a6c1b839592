"""Fixed white lists: clients, senders and recipients that never wait."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from .._clients import is_in
from .._options import Network, parse_network
from .rules import domain_of

_DOMAIN = re.compile(r"\.?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9-]{2,63}\.?", re.I)


@dataclass(frozen=True)
class Addresses:
    """Addresses, and domains whose addresses all count.

    Attributes:
        addresses: whole ones, in lower case; ``name@`` stands for that name in any domain.
        domains: with what is below them.
    """

    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()

    @classmethod
    def of(cls, texts: Iterable[str]) -> Addresses:
        """Make it of what :func:`parse_address_or_domain` gave."""
        texts = set(texts)
        domains = {text for text in texts if "@" not in text}
        return cls(frozenset(texts - domains), frozenset(domains))

    def __contains__(self, address: str) -> bool:
        address = address.lower()
        names = {address, f"{address.rpartition('@')[0]}@"}
        return bool(names & self.addresses) or is_below(domain_of(address), self.domains)


@dataclass(frozen=True)
class Clients:
    """Networks, and domains of clients whose names lead back to them.

    Attributes:
        networks: of clients.
        domains: of their names in reverse DNS, with what is below them.
    """

    networks: list[Network] = field(default_factory=list)
    domains: frozenset[str] = frozenset()

    @classmethod
    def of(cls, entries: Iterable[Network | str]) -> Clients:
        """Make it of what :func:`parse_network_or_domain` gave."""
        entries = list(entries)
        domains = frozenset(entry for entry in entries if isinstance(entry, str))
        return cls([entry for entry in entries if not isinstance(entry, str)], domains)

    def contain(self, ip: IPv4Address | IPv6Address, name: str | None) -> bool:
        """Return whether a client is listed.

        Args:
            ip: of the client.
            name: its name in reverse DNS if that leads back to it, else None.
        """
        return is_in(ip, self.networks) or (name is not None and is_below(name, self.domains))


class Lists(NamedTuple):
    """The white lists: of clients, senders and recipients."""

    clients: Clients = Clients()
    senders: Addresses = Addresses()
    recipients: Addresses = Addresses()


def is_below(domain: str, domains: frozenset[str]) -> bool:
    """Return whether a domain is one of some, or below one of them."""
    labels = domain.lower().rstrip(".").split(".")
    return any(".".join(labels[at:]) in domains for at in range(len(labels)))


def parse_network_or_domain(text: str) -> Network | str:
    """Parse an address, a network, or a domain of client names."""
    try:
        return parse_network(text)
    except ArgumentTypeError:
        if re.fullmatch(r"[\d./]*", text) or ":" in text:
            raise
    return _domain(text, "address, network or domain")


def parse_address_or_domain(text: str) -> str:
    """Parse an address, ``name@`` for a name in any domain, or a domain."""
    local, at, domain = text.rpartition("@")
    if not at or not local:
        return _domain(domain, "address or domain")
    if domain:
        _domain(domain, "address or domain")
    return text.lower().rstrip(".")


def _domain(text: str, what: str) -> str:
    if not _DOMAIN.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is not an {what}")
    return text.lower().strip(".")
