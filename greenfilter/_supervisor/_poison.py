"""Requests and messages that ended a worker twice are not tried a third time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

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

    Attributes:
        kinds: what the keys are of (phases, ``message``). For others no key needs to be made.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._deaths: TTLCache[Key, int] = TTLCache(_MAX_KEYS, _SECONDS, clock)
        self.kinds: set[object] = set()
        self._envelopes: set[Key] = set()

    def blame(self, keys: Iterable[Key]) -> None:
        """Count one death for each of what was in the worker's hands."""
        for key in set(keys):
            self._deaths[key] = self._deaths.get(key, 0) + 1
        self._note()

    def absolve(self, key: Key) -> None:
        """Note that a worker has dealt with this and lives."""
        if self._deaths.pop(key, None) is not None:
            self._note()

    def expire(self) -> None:
        """Forget what is too old, so that nothing more needs to be compared with it."""
        if self.kinds and self._deaths.expire():
            self._note()

    def deaths(self, key: Key) -> int:
        """Give the number of deaths that this was there for."""
        return self._deaths.get(key, 0)

    def knows(self, key: Key) -> bool:
        """Whether this is not to be tried again."""
        return self.deaths(key) >= _DEATHS

    def suspects(self, envelope: Key) -> bool:
        """Whether a message with this envelope has been there for any death."""
        return envelope in self._envelopes

    def _note(self) -> None:
        self.kinds = {key[0] for key in self._deaths}
        self._envelopes = {key[2:] for key in self._deaths if key[0] == "message"}


def request_key(call: Call, state: Session, header: list[bytes] | None) -> Key:
    """What makes a request the same when the client comes again.

    Args:
        call: the request.
        state: what is known of its session.
        header: of the message that it is about, at commit.
    """
    if header is not None:
        return (call.hook.wire, *message_key(state, header))
    # Not the parameter itself: at auth that is the password.
    parameter = hashlib.sha256(call.line[call.body :]).digest()
    return (call.hook.wire, parameter, *_sender(state))


def envelope_key(state: Session) -> Key:
    """What makes a message likely to be the same, before its header is known."""
    tx = state.tx
    return (tuple(tx.rcpt_to) if tx is not None else (), *_sender(state))


def message_key(state: Session, header: list[bytes]) -> Key:
    """What makes a message the same: its envelope, and its header but for trace fields."""
    digest = hashlib.sha256()
    for line in header:
        if not line.lower().startswith(_CHANGING):
            digest.update(line + b"\n")
    return ("message", digest.digest(), *envelope_key(state))


def _sender(state: Session) -> Key:
    tx = state.tx
    return (str(state.src), tx.mail_from if tx is not None else None)
