"""From the bytes of one field to the value that a handler gets."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from ..errors import RemoteProtocolError
from ._catalogue import EVENTS, NEWEST, OLDEST, PHASES, Event, Phase, Status


class Address:
    """One end of a connection: IP address and port, or a Unix socket.

    ``str()`` gives the address without its port: ``192.0.2.1``, ``2001:db8::1``, the path of the
    socket, or ``local`` for a socket whose path smtpd does not tell (at connect).

    Args:
        wire: as smtpd writes it: ``1.2.3.4``, ``[::1]``, ``1.2.3.4:25``, ``[::1]:25``,
            ``unix:/path`` or ``local``.
    """

    __slots__ = ("_ip", "_wire")

    def __init__(self, wire: str) -> None:
        self._wire = wire
        self._ip: ipaddress.IPv4Address | ipaddress.IPv6Address | bool | None = False

    @property
    def path(self) -> str | None:
        """Path of the Unix socket, or None."""
        return self._wire[5:] if self._wire.startswith("unix:") else None

    @property
    def port(self) -> int | None:
        """TCP port, or None where smtpd does not tell it."""
        host, colon, port = self._wire.rpartition(":")
        plain = colon and port.isascii() and port.isdigit() and (":" not in host or host[0] == "[")
        return int(port[:6]) if plain and not self.path else None

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """IP address, or None for a Unix socket."""
        if isinstance(self._ip, bool):
            try:
                self._ip = ipaddress.ip_address(self._host())
            except ValueError:
                self._ip = None
        return self._ip

    def _host(self) -> str:
        if self._wire.startswith("["):
            return self._wire[1:].partition("]")[0].removeprefix("IPv6:")
        return self._wire.rpartition(":")[0] if self.port is not None else self._wire

    def __str__(self) -> str:
        return self.path or self._host()

    def __repr__(self) -> str:
        return f"Address({self._wire!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self._wire == other._wire

    def __hash__(self) -> int:
        return hash(self._wire)


def text(raw: bytes) -> str:
    """Decode a field. Bytes that are not UTF-8 survive as surrogates (PEP 383)."""
    return raw.decode("utf-8", "surrogateescape")


_STATUS = {
    b"ok": Status.OK,
    b"pass": Status.OK,
    b"permfail": Status.PERMFAIL,
    b"fail": Status.PERMFAIL,
    b"tempfail": Status.TEMPFAIL,
    b"error": Status.TEMPFAIL,
}


def _status(raw: bytes) -> Status:
    try:
        return _STATUS[raw]
    except KeyError:
        raise RemoteProtocolError(f"not a result: {raw[:80]!r}") from None


_VIS = re.compile(
    rb"\\(?:([0-7]{3})|M-(.)|M\^(.)|\^(.)|([\\nrbavtfs0]))",
    re.DOTALL,
)
_VIS_C = dict(zip(b"\\nrbavtfs0", b"\\\n\r\b\a\v\t\f \0", strict=True))


def _unvis_one(match: re.Match[bytes]) -> bytes:
    octal, meta, meta_control, control, c_style = match.groups()
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    if meta:
        return bytes([meta[0] | 0x80])
    if meta_control:
        return bytes([(0xFF if meta_control == b"?" else (meta_control[0] & 0x1F) | 0x80)])
    if control:
        return bytes([0x7F if control == b"?" else control[0] & 0x1F])
    return bytes([_VIS_C[c_style[0]]])


def unvis(raw: bytes) -> str:
    """Decode vis(3), in which smtpd writes user names."""
    return text(_VIS.sub(_unvis_one, raw))


_MAX_DIGITS = 20


def _size(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > _MAX_DIGITS:
        raise RemoteProtocolError(f"not a size: {raw[:80]!r}")
    return int(raw)


_CONVERT: dict[str, Callable[[bytes], Any]] = {
    "text": text,
    "status": _status,
    "address": lambda raw: Address(text(raw)),
    "vis": unvis,
    "size": _size,
    "line": bytes,
}

_PARAMETERS = {phase: [_CONVERT[field.kind] for field in phase.fields] for phase in PHASES.values()}
_CONNECT, _LINK_CONNECT = PHASES["connect"], EVENTS["link_connect"]
_SWAPPED = frozenset(event for event in EVENTS.values() if event.swapped_before > OLDEST)
_FIELDS = {event: [_CONVERT[field.kind] for field in event.fields] for event in EVENTS.values()}
_VERSIONS: dict[bytes, tuple[int, int]] = {}


def version_of(raw: bytes) -> tuple[int, int]:
    """Return ``b"0.7"`` as (0, 7); what is not a version counts as the newest known one."""
    version = _VERSIONS.get(raw)
    if version is None:
        major, _, minor = raw.partition(b".")
        known = major.isdigit() and minor.isdigit() and len(raw) < 8
        version = (int(major), int(minor)) if known else NEWEST
        if len(_VERSIONS) < 64:
            _VERSIONS[raw] = version
    return version


def parse_parameter(phase: Phase, rest: bytes) -> list[Any]:
    """Return the values of a request's fields, as the handler takes them after ctx.

    A field that is missing is empty: the request is answered nonetheless.
    """
    converters = _PARAMETERS.get(phase, [])
    if not converters:
        return []
    # A zip(strict=) over the two took a quarter of the time here and below, when compiled.
    # The client's DNS chooses the rdns, which stands before its address.
    split = rest.rsplit if phase is _CONNECT else rest.split
    parts = split(b"|", len(converters) - 1)
    values = [converters[index](part) for index, part in enumerate(parts)]
    while len(values) < len(converters):
        values.append(converters[len(values)](b""))
    return values


def _split_report(event: Event, rest: bytes, count: int) -> list[bytes]:
    # The first field of link-connect is what the client's DNS says; no other can hold "|".
    split = rest.rsplit if event is _LINK_CONNECT else rest.split
    return split(b"|", count - 1)


def parse_report(event: Event, version: tuple[int, int], rest: bytes | None) -> list[Any]:
    """Return the values of a report's fields, as the handler takes them after ctx.

    Raises:
        RemoteProtocolError: a field is missing or is not what its kind says.
    """
    converters = _FIELDS.get(event, [])
    if not converters:
        return []
    parts = _split_report(event, rest, len(converters)) if rest is not None else []
    is_whole = len(parts) == len(converters)
    if event in _SWAPPED and is_whole and OLDEST <= version < event.swapped_before:
        # The field that may hold "|" stands before the result here: cut from the right.
        parts[-2], _, parts[-1] = b"|".join(parts[-2:]).rpartition(b"|")
        parts[-2], parts[-1] = parts[-1], parts[-2]
    values: list[Any] = [converters[index](part) for index, part in enumerate(parts)]
    while len(values) < len(converters):
        field = event.fields[len(values)]
        if not field.optional:
            raise RemoteProtocolError(f"report {event.wire} without its {field.name}")
        values.append(None)
    return values


def at_version(line: bytes, version: tuple[int, int]) -> bytes:
    """Write a line of smtpd's as one that speaks another version would.

    A report whose fields make no sense only gets the version.

    Args:
        line: a request or a report, without its LF.
        version: the version to write.
    """
    parts = line.split(b"|", 6)
    if len(parts) < 6:
        return line
    own = version_of(parts[1])
    event = _SWAPPED_BY_NAME.get(parts[4]) if parts[0] == b"report" else None
    if event is not None and len(parts) == 7:
        is_swapped, swap = own < event.swapped_before, version < event.swapped_before
        count = len(event.fields)
        *before, first, second = _split_swapped(parts[6], count, is_swapped)
        if len(before) == count - 2 and is_swapped != swap:
            parts[6] = b"|".join([*before, second, first])
    parts[1] = b"%d.%d" % version
    return b"|".join(parts)


def _split_swapped(rest: bytes, count: int, is_swapped: bool) -> list[bytes]:
    """Cut the fields of a report whose last two change places; the longer one may hold ``|``."""
    parts = rest.split(b"|", count - 1)
    if is_swapped and len(parts) == count:
        parts[-2], _, parts[-1] = b"|".join(parts[-2:]).rpartition(b"|")
    return parts if len(parts) >= 2 else [b"", b"", *parts]


_SWAPPED_BY_NAME = {event.wire.encode(): event for event in _SWAPPED}
