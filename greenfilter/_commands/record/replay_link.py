"""smtpd's side of the socket to a filter, with requests that were recorded."""

from __future__ import annotations

import time

import gevent.event

from ..._smtpd.link import FilterLink
from ..._smtpd.oracle import Answer
from ..._smtpd.target import Target
from ..._smtpd.wire import Version

# What may wait for the filter before the player waits as well.
_FLUSH_BYTES = 65_536


class ReplayLink(FilterLink):
    """A link that sends lines as they are, and returns the answers when they are asked for.

    Args:
        target: the filter.
        version: protocol version.
        timeout: seconds to wait for each answer.

    Attributes:
        answered: when the last answer of a session came (monotonic seconds).
    """

    def __init__(self, target: Target, version: Version, timeout: float) -> None:
        super().__init__(target, version, timeout)
        self.answered: dict[str, float] = {}
        self._asked: dict[str, gevent.event.AsyncResult[Answer | None]] = {}
        self._sent = 0

    def send_report(self, line: bytes) -> None:
        """Send a report. Switches greenlets now and then, until the filter has read."""
        self.check()
        self._put(line)

    def send_request(self, session_id: str, phase: str, token: str, line: bytes) -> None:
        """Send a request other than data-line. Switches greenlets now and then."""
        self.check()
        self._expect(session_id)
        self._tokens[phase] = token
        self.oracle.ask(session_id, phase, token)
        self._put(line)

    def send_data_line(self, session_id: str, token: str, content: bytes, line: bytes) -> None:
        """Send a line of a message. Switches greenlets now and then."""
        self.check()
        if content == b".":
            self._expect(session_id)
        self.oracle.data_line(session_id, token, content)
        self._put(line)

    def answer(self, session_id: str) -> Answer | None:
        """Wait for the answer to what a session was asked last. Switches greenlets.

        Returns:
            The answer; None for the end of a message.

        Raises:
            OracleError: instead of an answer.
        """
        return self._wait(self._asked.pop(session_id), "answer", session_id)

    def take_data(self, session_id: str) -> list[bytes]:
        """Return the lines that the filter has written for a message. Never switches."""
        return self._data.pop(session_id, [])

    def end(self, session_id: str) -> None:
        """End a session. Never switches."""
        super().end(session_id)
        self._asked.pop(session_id, None)
        self._waiting.pop(session_id, None)
        self.answered.pop(session_id, None)

    def _expect(self, session_id: str) -> None:
        self._asked[session_id] = self._waiting[session_id] = gevent.event.AsyncResult()

    def _put(self, line: bytes) -> None:
        self._send(line)
        self._sent += len(line)
        if self._sent > _FLUSH_BYTES:
            self._sent = 0
            self.flush()

    def _wake(self, session_id: str, answer: Answer | None) -> None:
        self.answered[session_id] = time.monotonic()
        super()._wake(session_id, answer)
