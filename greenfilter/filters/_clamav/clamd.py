"""clamd's side of the wire: one stream of INSTREAM, and what clamd says of it (clamd(8))."""

from __future__ import annotations

import re
import socket
import struct
from typing import Final, NamedTuple

from .._servers import Deadline, ServiceError

_MAX_ANSWER_BYTES: Final = 4096
_LIMITS = "Heuristics.Limits.Exceeded"  # what clamd finds where AlertExceedsMax is set
_CONTROL = re.compile(r"[^!-~]+")


class Verdict(NamedTuple):
    """What came of a scan.

    Attributes:
        kind: ``clean``, ``infected``, ``oversize`` or ``failed``.
        detail: the virus, or the reason; printable ASCII.
    """

    kind: str
    detail: str = ""


CLEAN: Final = Verdict("clean")


class Stream:
    """A message on its way to clamd.

    Args:
        sock: a connection to clamd.

    Raises:
        OSError: (every operation) clamd is gone, or too slow. Switches greenlets.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._begun = False

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send some of the message."""
        if data:
            self._send(struct.pack("!L", len(data)) + data, deadline)

    def end(self, deadline: Deadline) -> None:
        """Tell clamd that the message is complete; from here on it scans."""
        self._send(struct.pack("!L", 0), deadline)

    def answer(self, deadline: Deadline) -> Verdict:
        """Wait for what clamd says.

        Raises:
            ServiceError: it hung up, or its answer makes no sense.
        """
        answer = b""
        while not answer.endswith(b"\0") and len(answer) < _MAX_ANSWER_BYTES:
            self._sock.settimeout(deadline.left())
            data = self._sock.recv(_MAX_ANSWER_BYTES)
            if not data:
                break
            answer += data
        return parse(answer)

    def close(self) -> None:
        """End the connection. clamd goes on with a scan that it has begun."""
        self._sock.close()

    def _send(self, data: bytes, deadline: Deadline) -> None:
        self._sock.settimeout(deadline.left())
        self._sock.sendall(data if self._begun else b"zINSTREAM\0" + data)
        self._begun = True


def parse(answer: bytes) -> Verdict:
    """Read clamd's answer.

    Raises:
        ServiceError: it is not an answer, or says that this clamd cannot scan now.
    """
    text = answer.partition(b"\0")[0].decode("ascii", "replace").strip()
    if not answer.endswith(b"\0"):
        raise ServiceError(f"hung up after {text!r}" if text else "hung up without an answer")
    said = text.removeprefix("stream:").strip()
    if said == "OK":
        return CLEAN
    if said.endswith(" FOUND"):
        name = _CONTROL.sub("?", said.removesuffix(" FOUND").strip())
        return Verdict("oversize" if name.startswith(_LIMITS) else "infected", name)
    if "size limit exceeded" in said:
        return Verdict("oversize", "StreamMaxLength")
    raise ServiceError(f"answered {text[:200]!r}")
