"""Lines as smtpd writes them, for each version of the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Version = tuple[int, int]

# What called itself smtpd-version when the protocol version was current.
_SERVERS: Final = {
    (0, 4): "6.6.4",
    (0, 5): "6.7.1",
    (0, 6): "6.8.0p2",
    (0, 7): "7.8.0-portable",
}


def parse_version(text: str) -> Version:
    """Read a protocol version such as ``"0.7"``.

    Raises:
        ValueError: not one of 0.4 to 0.7.
    """
    for version in _SERVERS:
        if text == f"{version[0]}.{version[1]}":
            return version
    raise ValueError(f"protocol version {text!r} is not one of 0.4, 0.5, 0.6, 0.7")


@dataclass(frozen=True, slots=True)
class Wire:
    """Writes the lines of one protocol version.

    Text may hold bytes that are not UTF-8 as surrogate escapes.

    Args:
        version: protocol version.
    """

    version: Version

    def config(
        self, subsystems: tuple[str, ...], session_timeout: int, hostname: str
    ) -> list[bytes]:
        """Return the lines that start a filter (smtpd-filters(7), "CONFIGURATION")."""
        pairs = [("smtpd-version", _SERVERS[self.version])]
        if self.version >= (0, 7):
            pairs.append(("protocol", self._number))
        pairs.append(("smtp-session-timeout", str(session_timeout)))
        pairs += [("subsystem", subsystem) for subsystem in subsystems]
        if self.version >= (0, 6):
            pairs.append(("admd", hostname))
        return [_encode(f"config|{key}|{value}") for key, value in pairs] + [b"config|ready"]

    def report(
        self, now: float, subsystem: str, event: str, session_id: str, fields: tuple[str, ...]
    ) -> bytes:
        """Return one report. ``fields`` are in the order of version 0.7."""
        if self.version < (0, 7) and event == "link-auth":
            fields = fields[::-1]
        if self.version < (0, 6) and event in ("tx-mail", "tx-rcpt"):
            fields = (fields[0], fields[2], fields[1])
        words = ("report", self._number, f"{now:.6f}", subsystem, event, session_id, *fields)
        return _encode("|".join(words))

    def request(
        self, now: float, phase: str, session_id: str, token: str, fields: tuple[str, ...]
    ) -> bytes:
        """Return one request other than data-line."""
        words = ("filter", self._number, f"{now:.6f}", "smtp-in", phase, session_id, token, *fields)
        return _encode("|".join(words))

    def data_line(self, now: float, session_id: str, token: str, line: bytes) -> bytes:
        """Return the request for one line of a message."""
        return self.request(now, "data-line", session_id, token, ("",)) + line

    @property
    def _number(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


def decode(text: bytes) -> str:
    """Return bytes of a line as text; what is not UTF-8 becomes surrogate escapes."""
    return text.decode("utf-8", "surrogateescape")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def vis(name: str, version: Version) -> str:
    r"""Encode a user name as smtpd does (``strnvis(3)`` with VIS_WHITE and VIS_SAFE).

    White space becomes ``\040``, ``\^J``; a backslash is doubled; ``|`` stays as it is, and so
    does CR before version 0.7.
    """
    raw = name.encode("utf-8", "surrogateescape")
    return "".join("\r" if byte == 0x0D and version < (0, 7) else _vis(byte) for byte in raw)


def _vis(byte: int) -> str:
    low = byte & 0x7F
    if low == 0x20:
        return f"\\{byte:03o}"
    if byte == 0x5C:
        return "\\\\"
    if 0x20 < byte < 0x7F:
        return chr(byte)
    meta = "M" if byte & 0x80 else ""
    if low < 0x20 or low == 0x7F:
        return f"\\{meta}^{chr(low ^ 0x40)}"
    return f"\\{meta}-{chr(low)}"
