"""An SMTP session of the testing kit, told to the transcript, with passwords that are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..._smtpd.smtp_in import SmtpIn
from ..._smtpd.wire import decode
from ...protocol._credentials import redact_auth, redact_command, redact_reply

if TYPE_CHECKING:
    from ..._smtpd.model import Listener, Message, Peer
    from ..._smtpd.wire import Version
    from .keeper import RunningFilter
    from .transcript import Transcript

# What filter-response reports call differently.
_PHASES = {"connected": "connect", "tls": "starttls"}


class ServedSession(SmtpIn):
    """smtpd's side of a session with a client that is really there.

    Args:
        running: the filter.
        version: protocol version.
        listener: where the client connected.
        peer: the client.
        users: password by user name.
        deliver: called with the session id and each accepted message.
        transcript: told what happens.
    """

    def __init__(
        self,
        running: RunningFilter,
        version: Version,
        listener: Listener,
        peer: Peer,
        users: Mapping[str, str],
        deliver: Callable[[str, Message], None],
        transcript: Transcript,
    ) -> None:
        super().__init__(running.link, version, listener, peer, self._accepted)
        self._running = running
        self._users = users
        self._deliver_served = deliver
        self._transcript = transcript
        self._body_lines = self._body_bytes = 0
        self._message_ends = False
        self._filtered: tuple[float | None, list[str] | None] | None = None  # until it is decided

    def check_password(self, username: str, password: str) -> str:
        """Look a user up."""
        return "ok" if self._users.get(username) == password else "permfail"

    def data_line(self, line: bytes) -> None:
        """Take a line of the message."""
        self._body_lines += 1
        self._body_bytes += len(line) + 1
        super().data_line(line)

    def end_of_data(self) -> None:
        """Take the final dot."""
        self._message_ends = True
        super().end_of_data()

    def free(self) -> None:
        """Note that the connection is closed."""
        self._running.forget(self.id)
        super().free()

    def report(self, event: str, *fields: str) -> None:
        """Send a report of this session, and tell of it."""
        super().report(event, *fields)
        if event == "link-connect":
            self._transcript.connected(self.id, fields[2], fields[0], fields[1])
        elif event == "protocol-client":
            self._tell_client(fields[0])
        elif event == "protocol-server":
            self._transcript.server(self.id, _shown(redact_reply, fields[0]))
        elif event == "filter-response":
            self._tell_decision(fields[0], fields[1:])
        elif event == "link-tls":
            self._transcript.tls(self.id, fields[0])
        elif event == "timeout":
            self._transcript.failed(self.id, "the client was silent for too long")

    def _tell_client(self, line: str) -> None:
        if not self._message_ends:
            self._transcript.client(self.id, _shown(redact_command, line))
            return
        self._message_ends = False
        text = f"(message: {self._body_lines} lines, {self._body_bytes} bytes)"
        self._transcript.client(self.id, text)
        self._body_lines = self._body_bytes = 0
        if "data-line" in self._running.link.oracle.phases:
            watch = self._running.watch
            self._filtered = watch.seconds(self.id), watch.changes(self.id)

    def _tell_filtered(
        self, decision: str, seconds: float | None, changes: list[str] | None
    ) -> None:
        """Tell what became of the lines of a message: nothing, if it was refused."""
        is_refused = decision in ("reject", "disconnect")
        decided = not is_refused and changes != []
        names = self._running.who(self.id, "data-line", decided=decided)
        self._transcript.filtered(
            self.id, names, seconds, [] if is_refused else changes, refused=is_refused
        )

    def _tell_decision(self, phase: str, words: tuple[str, ...]) -> None:
        phase = _PHASES.get(phase, phase)
        if phase == "commit" and self._filtered is not None:
            (seconds, changes), self._filtered = self._filtered, None
            self._tell_filtered(words[0], seconds, changes)
        if phase not in self._running.link.oracle.phases:
            return
        if phase == "auth" and len(words) > 1 and words[0] == "rewrite":
            words = (words[0], _shown(redact_auth, words[1]))
        seconds = self._running.watch.seconds(self.id)
        names = self._running.who(self.id, phase, decided=words[0] != "proceed")
        self._transcript.decided(self.id, phase, "|".join(words), names, seconds)

    def _accepted(self, message: Message) -> None:
        self._deliver_served(self.id, message)


def _shown(redact: Callable[[bytes], bytes], text: str) -> str:
    return decode(redact(text.encode("utf-8", "surrogateescape")))
