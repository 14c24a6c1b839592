"""A DNS server on loopback, whose answers, delay and failures the test decides."""

from __future__ import annotations

import socketserver
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dnslib import AAAA, MX, NS, PTR, QTYPE, RCODE, RR, TXT, A, DNSError, DNSRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

SERVFAIL: Final = "SERVFAIL"
REFUSED: Final = "REFUSED"
DROP: Final = "DROP"
"""Values that may stand in place of a name's records, or of a whole server's ``failure``."""

_MAX_UDP_BYTES = 512  # RFC 1035, 4.2.1: without EDNS; a longer answer is truncated
_TTL_SECONDS = 60


@dataclass(frozen=True)
class Query:
    """One question that arrived: lower-case name without final dot, record type, udp or tcp."""

    name: str
    type: str
    transport: str


class DnsServer:
    """A DNS server on a free port of ``host``, over UDP and TCP. Use it with ``with``.

    ``zones``, ``delay`` and ``failure`` may be changed while it runs.

    Args:
        zones: name -> {type: value or values}, or SERVFAIL, REFUSED or DROP for that name:
            ``{"2.0.0.127.bl.example": {"A": "127.0.0.2", "TXT": ["listed", "twice"]}}``.
            A name that is missing is NXDOMAIN; one without the type asked for is an empty answer.
        delay: seconds before every answer.
        failure: SERVFAIL, REFUSED or DROP (never answers) for every name, or None.
        host: loopback address to bind.
        port: to bind; 0 for a free one.

    Attributes:
        port: of both UDP and TCP.
        queries: all questions so far, those that were not answered too.
    """

    def __init__(
        self,
        zones: Mapping[str, Mapping[str, str | Sequence[str]] | str] | None = None,
        *,
        delay: float = 0.0,
        failure: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.zones = dict(zones or {})
        self.delay = delay
        self.failure = failure
        self.host = host
        self.queries: list[Query] = []
        self._stopping = threading.Event()
        self._udp, self._tcp = _bind(self, host, port)
        self.port: int = self._udp.server_address[1]
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            for server in (self._udp, self._tcp)
        ]

    def __enter__(self) -> DnsServer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for server in (self._udp, self._tcp):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def count(self, name: str, type: str | None = None) -> int:
        """Count the questions for ``name``, of one type or of all."""
        wanted = name.rstrip(".").lower()
        return sum(q.name == wanted and type in (None, q.type) for q in list(self.queries))

    def answer(self, packet: bytes, transport: str) -> bytes | None:
        """Return the answer to a question, late as ``delay`` says, or None to stay silent."""
        try:
            request = DNSRecord.parse(packet)
        except DNSError:
            return None
        name = str(request.q.qname).rstrip(".").lower()
        kind = QTYPE[request.q.qtype]
        self.queries.append(Query(name, kind, transport))
        records = self._lookup(name)
        if self.delay and self._stopping.wait(self.delay):
            return None
        if records == DROP:
            return None
        reply = request.reply()
        if isinstance(records, str):
            reply.header.rcode = getattr(RCODE, records)
        elif records is None:
            reply.header.rcode = RCODE.NXDOMAIN
        else:
            for value in _values(records.get(kind, ())):
                reply.add_answer(
                    RR(name, getattr(QTYPE, kind), rdata=_rdata(kind, value), ttl=_TTL_SECONDS)
                )
        packed: bytes = reply.pack()
        if transport == "udp" and len(packed) > _MAX_UDP_BYTES:
            reply.rr, reply.header.tc = [], 1  # dnslib's truncate() loses the question too
            packed = reply.pack()
        return packed

    def _lookup(self, name: str) -> Mapping[str, str | Sequence[str]] | str | None:
        if self.failure is not None:
            return self.failure
        zones = {known.rstrip(".").lower(): records for known, records in self.zones.items()}
        if name in zones:
            return zones[name]
        # RFC 8020: a name that has names below it exists, and has no records.
        return {} if any(known.endswith(f".{name}") for known in zones) else None


def _values(records: str | Sequence[str]) -> Sequence[str]:
    return [records] if isinstance(records, str) else records


def _rdata(kind: str, value: str) -> Any:
    if kind == "TXT":
        # RFC 1035, 3.3: one character string holds 255 octets at most.
        data = value.encode()
        return TXT([data[i : i + 255] for i in range(0, len(data), 255)] or [b""])
    return {"A": A, "AAAA": AAAA, "MX": MX, "NS": NS, "PTR": PTR}[kind](value)


class _Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True
    max_packet_size = 65535
    dns: DnsServer


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    dns: DnsServer


class _UdpHandler(socketserver.BaseRequestHandler):
    server: _Udp

    def handle(self) -> None:
        packet, sock = self.request
        answer = self.server.dns.answer(packet, "udp")
        if answer is not None and not self.server.dns._stopping.is_set():
            sock.sendto(answer, self.client_address)


class _TcpHandler(socketserver.StreamRequestHandler):
    server: _Tcp
    timeout = 10

    def handle(self) -> None:
        while len(prefix := self.rfile.read(2)) == 2:
            answer = self.server.dns.answer(self.rfile.read(*struct.unpack("!H", prefix)), "tcp")
            if answer is not None:
                self.wfile.write(struct.pack("!H", len(answer)) + answer)


def _bind(dns: DnsServer, host: str, port: int) -> tuple[_Udp, _Tcp]:
    """Bind UDP and TCP to one port."""
    for _ in range(20):
        tcp = _Tcp((host, port), _TcpHandler)
        try:
            udp = _Udp((host, tcp.server_address[1]), _UdpHandler)
        except OSError:
            tcp.server_close()
            continue
        tcp.dns = udp.dns = dns
        return udp, tcp
    raise RuntimeError(f"no port of {host}, or not {port}, is free for both UDP and TCP")
