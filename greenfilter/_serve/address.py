"""Addresses as smtpd writes them, and their names."""

from __future__ import annotations

import ipaddress
import socket

import gevent.socket

UNKNOWN = "<unknown>"


def reverse_dns(address: str) -> tuple[str, str]:
    """Look an address up, and back again. Switches greenlets.

    Returns:
        The name, ``<unknown>`` for none, and whether it leads back: ``pass`` or ``fail``.
    """
    flags = socket.NI_NAMEREQD | socket.NI_NUMERICSERV
    try:
        name = gevent.socket.getnameinfo((address, 0), flags)[0]
    except OSError:
        return UNKNOWN, "fail"
    try:
        found = gevent.socket.getaddrinfo(name, None)
    except OSError:
        found = []
    same = ipaddress.ip_address(address) in {_ip(entry[4][0]) for entry in found}
    return name, "pass" if same else "fail"


def _ip(text: str | int) -> object:
    return ipaddress.ip_address(str(text).partition("%")[0])


def shown(address: tuple[str | int, ...]) -> str:
    """Give an address and port as smtpd writes them."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
