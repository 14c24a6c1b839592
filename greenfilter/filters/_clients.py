"""Who a client is: ours, or a stranger."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .. import Address, Session
    from ._options import Network

Ip = IPv4Address | IPv6Address


def client_ip(address: Address | None) -> Ip | None:
    """Return a client's address, IPv4 where it is IPv4 in IPv6's form; None for a socket."""
    ip = address.ip if address is not None else None
    return getattr(ip, "ipv4_mapped", None) or ip


def is_in(ip: Ip, networks: Iterable[Network]) -> bool:
    """Return whether an address is in any of some networks."""
    return any(ip in network for network in networks)


def is_ours(session: Session, networks: Iterable[Network]) -> bool:
    """Return whether a client is on this host, in one of our networks, or has authenticated."""
    ip = client_ip(session.src)
    return ip is None or session.authenticated or ip.is_loopback or is_in(ip, networks)
