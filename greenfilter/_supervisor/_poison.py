"""Requests and messages that ended a worker twice are not tried a third time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cachetools import TTLCache

from ..protocol import Call, Session

Key = tuple[object, ...]

_MAX_KEYS = 4096
# A sender tries again for days; after this the filter may have been mended.
_SECONDS = 6 * 3600.0
_DEATHS = 2
# These differ each time that the same message comes.
_CHANGING = (b"received:", b"x-spam:", b"\t", b" ")


class Poison:
    """Counts the deaths that each request or message was there for.

    Args:
        clock: gives the time (monotonic seconds).
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._deaths: TTLCache[Key, int] = TTLCache(_MAX_KEYS, _SECONDS, clock)

    def blame(self, key: Key) -> int:
        """Count a death, and give the number of them."""
        deaths = self._deaths.get(key, 0) + 1
        self._deaths[key] = deaths
        return deaths

    def knows(self, key: Key) -> bool:
        """Whether this is not to be tried again."""
        return bool(self._deaths) and self._deaths.get(key, 0) >= _DEATHS

    def suspects(self, key: Key) -> bool:
        """Whether this has been there for any death."""
        return bool(self._deaths) and key in self._deaths


def request_key(call: Call, header: list[bytes] | None) -> Key:
    """What makes a request the same when the client comes again.

    Args:
        call: the request.
        header: of the message that it is about, at commit.
    """
    if header is not None:
        return (call.hook.wire, *message_key(call.session, header))
    parameter = call.line.split(b"|", 7)[7]
    return (call.hook.wire, parameter, *_sender(call.session))


def envelope_key(session: Session) -> Key:
    """What makes a message likely to be the same, before its header is known."""
    tx = session.tx
    return ("envelope", tuple(tx._rcpt_to) if tx is not None else (), *_sender(session))


def message_key(session: Session, header: list[bytes]) -> Key:
    """What makes a message the same: its envelope, and its header but for trace fields."""
    digest = hashlib.sha256()
    for line in header:
        if not line.lower().startswith(_CHANGING):
            digest.update(line + b"\n")
    return ("message", digest.digest(), *envelope_key(session))


def _sender(session: Session) -> Key:
    tx = session.tx
    return (str(session.src), tx._mail_from if tx is not None else None)
