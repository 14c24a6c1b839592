"""Plays recordings into a filter and compares its decisions with the recorded ones.

Lines are sent in the recorded order, with the recorded ids and times. Where the recording has an
answer, the player waits for the filter's own before it goes on, so that between sessions too
everything happens in the recorded order.

Where the filter decides otherwise, what follows was recorded for another answer. Is the session
over by it (a disconnect, a refusal with 421 or at connect, an answer that smtpd does not forgive),
then no more of it is played but its link-disconnect. Else it is played on as it was recorded;
further differences of the session may well follow from the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import gevent

from ..._smtpd.oracle import OLD_LINE_BYTES, OracleError, SmtpdWouldDie
from ..._smtpd.target import Target
from ..._smtpd.wire import decode, parse_version
from ...errors import UsageError
from ...protocol._catalogue import TOKEN_FIRST_BEFORE
from .format import Entry, UnreadableLog
from .replay_link import ReplayLink
from .result import Request, Result, message_difference, without_password

_LOG_LINES = 20
_RESPONSE_PHASES = {"connected": "connect", "tls": "starttls"}


@dataclass(slots=True)
class _Session:
    """What is known of a session.

    Attributes:
        client: who connected.
        stopped: nothing more is played but its end.
        late: it began before the recording; nothing is played.
        request: asked, and the recording has not come to its answer.
        message: of which lines are being asked.
        sent: its lines, for a filter that does not ask for them.
        recorded: its lines as the recorded filter let them pass.
    """

    client: str = ""
    stopped: bool = False
    late: bool = False
    request: Request | None = None
    message: Request | None = None
    sent: list[bytes] = field(default_factory=list)
    recorded: list[bytes] = field(default_factory=list)


class Player:
    """Plays recordings into filters that it starts: a new one where smtpd was configured again.

    Args:
        target: makes a filter.
        timeout: seconds to wait for each answer.
        original: keep the pauses of the recording.
        timeline: keep all requests in the result.
        observe: what the filter decides changes nothing: each session is played to its end.
    """

    def __init__(
        self,
        target: Callable[[], Target],
        timeout: float,
        original: bool,
        timeline: bool,
        observe: bool = False,
    ) -> None:
        self.result = Result(timeline=[] if timeline else None)
        self._target = target
        self._timeout = timeout
        self._original = original
        self._observe = observe
        self._link: ReplayLink | None = None
        self._config: list[bytes] = []
        self._new_config: list[bytes] = []
        self._registered: set[bytes] = set()
        self._sessions: dict[str, _Session] = {}
        self._began = time.monotonic()
        self._offset: float | None = None
        self._version = (0, 7)

    def play(self, entries: Iterable[Entry]) -> Result:
        """Play all. Switches greenlets.

        Raises:
            UnreadableLog: a line makes no sense.
            UsageError: the filter does not start.
        """
        try:
            for entry in entries:
                self._play(entry)
        except SmtpdWouldDie as error:
            whose = f"session {error.session_id}: " if error.session_id else ""
            self.result.trouble.append(whose + str(error))
        finally:
            self._close()
        return self.result

    def _play(self, entry: Entry) -> None:
        word, _, rest = entry.line.partition(b"|")
        if not entry.from_smtpd:
            self._from_filter(word, rest, entry)
        elif word == b"config":
            self._configure(entry.line)
        else:
            link = self._link or self._open(entry)
            self._pause(entry)
            if word == b"report":
                self._report(link, entry.line)
            else:
                self._request(link, entry)

    # The filter

    def _configure(self, line: bytes) -> None:
        """Collect the handshake; a file that goes on where another was full repeats it."""
        self._new_config.append(line)
        if line == b"config|ready":
            if self._new_config != self._config:
                self._close()
                self._config = self._new_config
            self._new_config = []

    def _open(self, entry: Entry) -> ReplayLink:
        if not self._config:
            raise UnreadableLog(f"{entry.where}: no handshake (config|ready) comes before this")
        try:
            self._version = parse_version(entry.line.split(b"|")[1].decode("latin-1"))
        except ValueError as error:
            raise UnreadableLog(f"{entry.where}: {error}") from error
        link = self._link = ReplayLink(self._target(), self._version, self._timeout)
        try:
            link.open(self._config)
        except OSError as error:
            self._link = None
            raise UsageError(f"the filter did not start: {error}") from error
        except OracleError as error:
            raise UsageError(f"the filter did not start: {error}") from error
        if not self.result.sessions:
            self._began = time.monotonic()
        self._offset = None
        self._note_what_was_not_recorded(link)
        return link

    def _note_what_was_not_recorded(self, link: ReplayLink) -> None:
        missing = sorted(
            f"{kind} {name}"
            for kind, subsystem, name in link.oracle.registered
            if not {f"{kind}|{subsystem}|{name}".encode(), f"{kind}|{subsystem}|*".encode()}
            & self._registered
        )
        if missing:
            self.result.notes.append(
                f"not played, as the recorded filter did not register it: {', '.join(missing)}"
            )

    def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self.result.trouble += [
                str(error) for error in link.close() if str(error) not in self.result.trouble
            ]
            self.result.log += link.target.log[-_LOG_LINES:]
        self._sessions.clear()

    # What smtpd wrote

    def _pause(self, entry: Entry) -> None:
        if not self._original or entry.time is None:
            return
        if self._offset is None:
            self._offset = time.monotonic() - entry.time
        gevent.sleep(max(0.0, self._offset + entry.time - time.monotonic()))

    def _report(self, link: ReplayLink, line: bytes) -> None:
        words = decode(line).split("|", 6)
        subsystem, event, session_id = words[3:6]
        session = self._session(subsystem, event, session_id)
        if event == "link-connect":
            session.client = " ".join(words[6].rsplit("|", 3)[::2]) if len(words) > 6 else ""
            if not session.late:
                self._keep_client(session_id, session.client)
            if subsystem == "smtp-in" and not session.stopped:
                link.oracle.begin(session_id)
        elif event == "filter-response" and not session.stopped:
            phase = words[6].partition("|")[0] if len(words) > 6 else ""
            phase = _RESPONSE_PHASES.get(phase, phase)
            if phase not in link.oracle.phases:
                link.oracle.skip(session_id, phase)
        played = not session.stopped or (event == "link-disconnect" and not session.late)
        if played and link.oracle.reports[subsystem, event]:
            link.send_report(line)
        if event == "link-disconnect":
            if subsystem == "smtp-in":
                link.end(session_id)
            del self._sessions[session_id]

    def _request(self, link: ReplayLink, entry: Entry) -> None:
        words = entry.line.split(b"|", 7)
        phase, session_id, token = (decode(word) for word in words[4:7])
        session = self._session("smtp-in", phase, session_id)
        if session.stopped:
            return
        if phase == "data-line":
            self._data_line(link, session, session_id, token, words[7], entry)
            return
        request = self._new(session, session_id, phase, words[7], entry)
        if phase not in link.oracle.phases:
            link.oracle.skip(session_id, phase)
            request.decision, request.ended = b"proceed", request.began
        else:
            if session.request is not None and session.request.decision is None:
                self._take_answer(link, session, session.request)
            link.send_request(session_id, phase, token, entry.line)
        session.request = request

    def _data_line(
        self,
        link: ReplayLink,
        session: _Session,
        session_id: str,
        token: str,
        content: bytes,
        entry: Entry,
    ) -> None:
        if session.message is None:
            session.message = self._new(session, session_id, "data-line", b"", entry)
            session.sent, session.recorded = [], []
        if "data-line" in link.oracle.phases:
            link.send_data_line(session_id, token, content, entry.line)
        elif content != b".":
            session.sent.append(content)
        if content == b".":
            session.message.ended = time.monotonic() - self._began
        else:
            session.message.lines += 1

    def _session(self, subsystem: str, event: str, session_id: str) -> _Session:
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session()
            if subsystem == "smtp-in" and self._begins_late(event):
                session.stopped = session.late = True
                self.result.left_out += 1
            else:
                self.result.sessions += 1
                self._keep_client(session_id, "")
        return session

    def _keep_client(self, session_id: str, client: str) -> None:
        if self.result.timeline is not None:
            self.result.clients[session_id] = client

    def _begins_late(self, event: str) -> bool:
        """Return whether a session with this as its first line began before the recording."""
        if {b"report|smtp-in|link-connect", b"report|smtp-in|*"} & self._registered:
            return event != "link-connect"
        return b"filter|smtp-in|connect" in self._registered and event != "connect"

    def _new(
        self, session: _Session, session_id: str, phase: str, parameter: bytes, entry: Entry
    ) -> Request:
        shown = without_password(phase, parameter)
        now = time.monotonic() - self._began
        request = Request(session_id, session.client, phase, shown, entry.time, now)
        if phase == "data-line":
            self.result.messages += 1
        else:
            self.result.requests += 1
        if self.result.timeline is not None:
            self.result.timeline.append(request)
        return request

    # What the recorded filter wrote

    def _from_filter(self, word: bytes, rest: bytes, entry: Entry) -> None:
        if word == b"register":
            self._registered.add(rest)
            return
        if self._version < (0, 7):
            rest = entry.line[:OLD_LINE_BYTES].partition(b"|")[2]
        words = rest.split(b"|", 2)
        if len(words) < 3 or self._link is None:
            return
        session_id = decode(words[1] if self._version < TOKEN_FIRST_BEFORE else words[0])
        session = self._sessions.get(session_id)
        if session is None or session.stopped:
            return
        if word == b"filter-result" and session.request is not None:
            self._compare(self._link, session, session.request, words[2], entry)
        elif word == b"filter-dataline" and session.message is not None:
            if words[2] != b".":
                session.recorded.append(words[2])
            elif session.message.ended is None:
                session.stopped = True  # the recorded filter cut the message short
            else:
                self._compare_message(self._link, session, session.message, entry)

    def _compare(
        self, link: ReplayLink, session: _Session, request: Request, recorded: bytes, entry: Entry
    ) -> None:
        session.request = None
        request.answered = entry.time
        request.recorded = without_password(request.phase, recorded)
        if request.decision is None:
            self._take_answer(link, session, request)
        self._judge(session, request)

    def _take_answer(self, link: ReplayLink, session: _Session, request: Request) -> None:
        try:
            answer = link.answer(request.session_id)
        except SmtpdWouldDie:
            raise
        except OracleError as error:
            decision = _written(error)
            request.fault = _reason(error)
        else:
            assert answer is not None
            decision = answer.kind.encode() + (b"|" + answer.parameter if answer.parameter else b"")
        request.decision = without_password(request.phase, decision)
        request.ended = link.answered.get(request.session_id, time.monotonic()) - self._began

    def _compare_message(
        self, link: ReplayLink, session: _Session, message: Request, entry: Entry
    ) -> None:
        session.message = None
        message.answered = entry.time
        if "data-line" not in link.oracle.phases:
            lines = session.sent
        else:
            try:
                link.answer(message.session_id)
            except SmtpdWouldDie:
                raise
            except OracleError as error:
                message.recorded, message.decision = b"a message", _written(error)
                message.fault = "no end of the message"
                self._judge(session, message)
                return
            message.ended = link.answered[message.session_id] - self._began
            lines = link.take_data(message.session_id)
        message.recorded, message.decision = message_difference(session.recorded, lines)
        self._judge(session, message)

    def _judge(self, session: _Session, request: Request) -> None:
        if request.changed:
            self.result.differences.append(request)
            ends = request.fault or (
                not self._observe and _ends_session(request.phase, request.decision)
            )
            session.stopped = session.stopped or bool(ends)


def _written(error: OracleError) -> bytes:
    """Return the decision that is at fault; where none was written, what is wrong."""
    words = (error.line or b"").split(b"|", 3)
    return words[3] if len(words) == 4 else str(error).partition("\n")[0].encode()


def _reason(error: OracleError) -> str:
    return str(error).removesuffix(f": {error.line!r}" if error.line else "")


def _ends_session(phase: str, decision: bytes | None) -> bool:
    word, _, reply = (decision or b"").partition(b"|")
    return word == b"disconnect" or (
        word == b"reject" and (phase == "connect" or reply.startswith(b"421"))
    )
