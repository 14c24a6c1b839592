"""Which members of a chain have decided: their chain says so in its log."""

from __future__ import annotations

import re
import time

from gevent.event import Event

# As the chain's host and its pipeline write them; a person reads the same lines in smtpd's log.
_LINE = re.compile(r"info: ([0-9a-f]{16}): ([a-z-]+): .+ by (.+)")
# The log has a way of its own, and may come after the answer.
_LOG_SECONDS = 1.0


class Members:
    """Listens to the log of a chain.

    Args:
        name: of the chain, which has decided what no member has.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._named: dict[tuple[str, str], list[str]] = {}
        self._more = Event()

    def note(self, line: str) -> None:
        """Take a line of the log. Never switches greenlets."""
        if found := _LINE.fullmatch(line):
            self._named.setdefault((found[1], found[2]), []).append(found[3])
            self._more.set()

    def who(self, session_id: str, phase: str, *, wait: bool) -> list[str]:
        """Name the members that have decided at a phase since they were last asked for.

        Args:
            session_id: of the client.
            phase: on the wire.
            wait: some have, and the log will tell. May switch greenlets then.
        """
        key = (session_id, phase)
        end = time.monotonic() + _LOG_SECONDS
        while wait and key not in self._named and (left := end - time.monotonic()) > 0:
            self._more.clear()
            self._more.wait(left)
        return self._named.pop(key, [self._name])

    def forget(self, session_id: str) -> None:
        """A session is over."""
        for key in [key for key in self._named if key[0] == session_id]:
            del self._named[key]
