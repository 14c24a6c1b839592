"""Servers that do the same work: which to ask first, and what the log says of those away."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..errors import GreenfilterError

_QUIET_SECONDS = 60.0  # between two log lines that say that a server is away
_IPV4 = re.compile(r"\d+\.\d+\.\d+\.\d+")
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]/]+))(?::(\d{1,5}))?")


class ServiceError(GreenfilterError):
    """No server did the work. The text says which were asked, and what came of it."""


class Server(NamedTuple):
    """Where a server listens.

    Attributes:
        host: name or address, or the path of a unix socket.
        port: 0 where ``host`` is a path.
    """

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connect(self, seconds: float) -> socket.socket:
        """Connect. Switches greenlets.

        Raises:
            OSError: it could not be reached within ``seconds``.
        """
        family = self._family()
        if family is None:
            sock = socket.create_connection((self.host, self.port), seconds)
        else:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(seconds)
                sock.connect((self.host, self.port) if self.port else self.host)
            except BaseException:
                sock.close()
                raise
        if self.port:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _family(self) -> int | None:
        """Return the family of the address; None where it is a name, which a thread looks up."""
        if not self.port:
            return socket.AF_UNIX
        if ":" in self.host:
            return socket.AF_INET6
        return socket.AF_INET if _IPV4.fullmatch(self.host) else None


def server_type(default_port: int) -> Callable[[str], Server]:
    """Make the type of an option that names a server: HOST, HOST:PORT, [IPv6]:PORT, unix:PATH."""

    def server(text: str) -> Server:
        kind, _, path = text.partition(":")
        if kind == "unix":
            if not path.startswith("/") or "\0" in path or len(path.encode()) > 107:
                raise argparse.ArgumentTypeError(f"{text!r}: a socket is unix:/PATH, 107 bytes")
            return Server(path, 0)
        match = _HOST_PORT.fullmatch(text)
        port = int(match[3] or default_port) if match else 0
        if match is None or not 0 < port < 65_536 or not _is_ipv6(match[1] or "::"):
            raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, [IPv6]:PORT or unix:PATH")
        return Server(match[1] or match[2], port)

    return server


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


class Deadline:
    """A time limit over many steps.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: none are.
        """
        left = self._end - time.monotonic()
        if left <= 0.0:
            raise TimeoutError("timed out")
        return left

    def share(self, parts: int) -> Deadline:
        """Return one of some equal parts of the time that is left."""
        return Deadline(self.left() / parts)


class Servers:
    """The servers of one service, in order of preference.

    One that failed is asked last for a while, so that not every message waits for it. The log says
    so once a minute, and when it is back.

    Args:
        service: its name in the log.
        servers: the first is preferred.
        rest: seconds that one that failed is asked last.
    """

    def __init__(self, service: str, servers: Sequence[Server], rest: float = 10.0) -> None:
        self._log = logging.getLogger(f"greenfilter.{service}")
        self._service = service
        self._servers = list(servers)
        self._rest = rest
        self._resting: dict[Server, float] = {}  # until when each is asked last
        self._told: dict[Server, float] = {}  # when the log said last that one is away

    @contextlib.contextmanager
    def asking(
        self, server: Server, *failures: type[OSError] | type[ServiceError]
    ) -> Iterator[None]:
        """Ask a server; one of ``failures``, by default any, means that it is away."""
        failures = failures or (OSError, ServiceError)
        try:
            yield
        except failures as error:
            self.failed(server, error)
            raise
        self._resting.pop(server, None)
        if self._told.pop(server, None) is not None:
            self._log.warning("%s: server %s answers again", self._service, server)

    def in_order(self) -> list[Server]:
        """Return all servers, those first that are not known to be away."""
        now = time.monotonic()
        return sorted(self._servers, key=lambda server: self._resting.get(server, 0.0) > now)

    def failed(self, server: Server, error: Exception) -> None:
        """Note that a server is away."""
        now = time.monotonic()
        self._resting[server] = now + self._rest
        if now - self._told.get(server, -_QUIET_SECONDS) >= _QUIET_SECONDS:
            self._told[server] = now
            text = describe(error)
            self._log.warning("%s: server %s is away: %s", self._service, server, text)


def describe(error: Exception) -> str:
    """Return what an error says, in one line."""
    text = (error.strerror if isinstance(error, OSError) else "") or str(error)
    return " ".join(text.split()) or type(error).__name__
