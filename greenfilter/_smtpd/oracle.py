"""What real smtpd does with each line that a filter writes.

No I/O, no clock, no greenlets. The rules are those of ``usr.sbin/smtpd/lka_filter.c`` and
``smtp_session.c`` of OpenSMTPD 6.8.0p2 and 7.8.0, checked against recordings of both servers.
Nothing here is shared with the code that keeps greenfilter from writing such lines, except the
catalogue of names: the two must not make the same mistake.

Where smtpd does not notice a fault at once (a wrong token in a reject, a registration after
``register|ready``), the oracle is the stricter one: no filter has a reason to write it.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass, field

from ..errors import GreenfilterError
from ..protocol._catalogue import DECISION_SINCE, EVENTS, PHASES
from ..protocol._credentials import redact

_EVENTS = frozenset(event.wire for event in EVENTS.values())
_PHASES = frozenset(phase.wire for phase in PHASES.values())
_WITH_PARAMETER = frozenset({"rewrite", "reject", "disconnect", "report"})
_HEX = re.compile(rb"[0-9A-Fa-f]{1,16}\Z")
_REPLY = re.compile(rb"[45][0-9]{2} .")

# 6.8 copies each reply into a buffer of LINE_MAX bytes, its end included, and cuts silently.
OLD_LINE_BYTES = 2047
# Since 7.0 the decision travels in one imsg: 16 KiB with its header, ids and the ending NUL.
_MAX_PARAMETER_BYTES = 16 * 1024 - 30
# smtpd's input buffer holds 64 KiB; a line that fills it is never read to its end.
_MAX_LINE_BYTES = 64_000
# How many sessions are remembered after their end.
_ENDED_SESSIONS = 1000


class OracleError(GreenfilterError, AssertionError):
    """The filter did what real smtpd does not forgive.

    Attributes:
        line: what the filter wrote, or None where it is not a line that is wrong.
        session_id: the session concerned, or None if there is none.
    """

    def __init__(
        self, reason: str, line: bytes | None = None, session_id: str | None = None
    ) -> None:
        shown = "" if line is None else f": {redact(line)[:300]!r}"
        super().__init__(reason + shown)
        self.line = line
        self.session_id = session_id


class SmtpdWouldDie(OracleError):
    """Real smtpd ends at this, and all mail with it."""


class SmtpdWouldHang(OracleError):
    """Real smtpd never goes on with this session."""


class ClientCut(OracleError):
    """Real smtpd sends this client ``421 Internal server error`` and closes its connection."""


class LoopBlocked(OracleError):
    """A handler kept every session waiting past its own deadline, which production would not."""


@dataclass(frozen=True, slots=True)
class Registration:
    """The filter registered ``name``; ``*`` has been spelled out by the time it is applied."""

    kind: str
    subsystem: str
    name: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The filter ended its registration."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A request was answered.

    Args:
        session_id: of the request.
        phase: of the request, wire name.
        kind: ``proceed``, ``junk``, ``reject``, ``disconnect``, ``rewrite`` or ``report``.
        parameter: what follows the kind; empty for proceed and junk.
    """

    session_id: str
    phase: str
    kind: str
    parameter: bytes = b""


@dataclass(frozen=True, slots=True)
class DataLine:
    """A line of the message as the filter wants it, dot-stuffed."""

    session_id: str
    line: bytes


@dataclass(frozen=True, slots=True)
class EndOfData:
    """The filter wrote the final dot."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """smtpd drops the line: its session is gone."""


Effect = Registration | Ready | Answer | DataLine | EndOfData | Ignored


@dataclass(slots=True)
class _Session:
    phase: str = "connect"
    outstanding: bool = False
    dot_asked: bool = False
    dot_written: bool = False


@dataclass(slots=True)
class Oracle:
    """One filter as smtpd's lookup process sees it.

    Tell it what smtpd sends (:meth:`begin`, :meth:`ask`, :meth:`skip`, :meth:`data_line`,
    :meth:`end`), give it every line that the filter writes (:meth:`receive`).

    Args:
        version: protocol version, (0, 4) to (0, 7).
    """

    version: tuple[int, int] = (0, 7)
    ready: bool = False
    reports: Counter[tuple[str, str]] = field(default_factory=Counter)
    phases: set[str] = field(default_factory=set)
    _tokens: dict[str, str] = field(default_factory=dict)
    _sessions: dict[str, _Session] = field(default_factory=dict)
    _ended: deque[str] = field(default_factory=lambda: deque(maxlen=_ENDED_SESSIONS))

    @property
    def registered(self) -> set[tuple[str, str, str]]:
        """What the filter registered: ``(kind, subsystem, name)``, names as on the wire."""
        reports = {("report", subsystem, event) for subsystem, event in self.reports}
        return reports | {("filter", "smtp-in", phase) for phase in self.phases}

    def begin(self, session_id: str) -> None:
        """Note that a client connected."""
        self._sessions[session_id] = _Session()

    def end(self, session_id: str) -> None:
        """End a session: data lines that still come for it are ignored."""
        if self._sessions.pop(session_id, None):
            self._ended.append(session_id)

    def ask(self, session_id: str, phase: str, token: str) -> None:
        """Note that a request other than data-line is written, one per session at a time."""
        session = self._sessions.setdefault(session_id, _Session())
        self._tokens[phase] = token
        session.phase = phase
        session.outstanding = True

    def skip(self, session_id: str, phase: str) -> None:
        """Note that a phase begins that the filter did not register: it is not asked."""
        self._sessions.setdefault(session_id, _Session()).phase = phase

    def data_line(self, session_id: str, token: str, line: bytes) -> None:
        """Note that a data-line request is written; a lone dot is the end of the message."""
        session = self._sessions.setdefault(session_id, _Session())
        self._tokens["data-line"] = token
        if session.phase != "data-line":
            session.phase = "data-line"
            session.dot_asked = session.dot_written = False
        session.dot_asked = line == b"."

    def unanswered(self) -> dict[str, str]:
        """Return the sessions that wait for the filter, and the phase in which they do."""
        return {
            session_id: session.phase
            for session_id, session in self._sessions.items()
            if session.outstanding
            or (session.phase == "data-line" and session.dot_asked and not session.dot_written)
        }

    def receive(self, line: bytes) -> Effect:
        """Judge one line of the filter.

        Args:
            line: without its LF.

        Returns:
            What smtpd does.

        Raises:
            SmtpdWouldDie: smtpd ends.
            SmtpdWouldHang: the session stops for good.
            ClientCut: the client gets 421 and is cut. The request counts as answered.
        """
        # processor_io() reads C strings: a NUL ends the line.
        line = line.split(b"\0", 1)[0]
        if line.startswith(b"register|"):
            return self._register(line)
        if not self.ready:
            raise SmtpdWouldDie("before register|ready only registrations are allowed", line)
        if line.startswith(b"report|"):
            raise SmtpdWouldDie("a filter cannot write reports (unexpected direction)", line)
        if not line.startswith((b"filter-result|", b"filter-dataline|")):
            raise SmtpdWouldDie("neither filter-result nor filter-dataline", line)
        return self._response(line)

    def _register(self, line: bytes) -> Effect:
        if self.ready:
            raise SmtpdWouldDie("registration after register|ready", line)
        words = line.decode("latin-1").split("|")
        if words == ["register", "ready"]:
            self.ready = True
            return Ready()
        if len(words) != 4 or words[1] not in ("report", "filter"):
            raise SmtpdWouldDie("not a registration", line)
        kind, subsystem, name = words[1:]
        if subsystem not in (("smtp-in", "smtp-out") if kind == "report" else ("smtp-in",)):
            raise SmtpdWouldDie(f"{kind} cannot be registered for this subsystem", line)
        if kind == "filter":
            if name not in _PHASES:
                raise SmtpdWouldDie("unknown phase", line)
            self.phases.add(name)
        else:
            if name != "*" and name not in _EVENTS:
                raise SmtpdWouldDie("unknown report", line)
            self.reports.update(
                (subsystem, event) for event in (_EVENTS if name == "*" else {name})
            )
        return Registration(kind, subsystem, name)

    def _response(self, line: bytes) -> Effect:
        if len(line) >= _MAX_LINE_BYTES:
            raise SmtpdWouldHang(f"{len(line)} bytes fill smtpd's input buffer for good", line)
        whole = line
        if self.version < (0, 7):
            line = line[:OLD_LINE_BYTES]
        words = line.split(b"|", 3)
        if len(words) < 4:
            raise SmtpdWouldDie("a session, a token and a response belong here", whole)
        session_id, token = hex_ids(words[1], words[2], whole)
        if self.version < (0, 5):
            session_id, token = token, session_id
        session = self._sessions.get(session_id)
        if session is None:
            if token in self._sessions and session_id in self._tokens.values():
                raise SmtpdWouldHang("session and token are swapped: no answer", whole, token)
            if words[0] == b"filter-result" and session_id in self._ended:
                # smtpd forgets the session a moment later, and lives if it did so by now.
                raise SmtpdWouldDie("the session is over, nothing is asked", whole, session_id)
            return Ignored()
        if words[0] == b"filter-dataline":
            return self._data(session, session_id, token, words[3], whole)
        return self._result(session, session_id, token, words[3], whole)

    def _data(
        self, session: _Session, session_id: str, token: str, content: bytes, line: bytes
    ) -> Effect:
        if session.phase != "data-line":
            raise SmtpdWouldDie(f"data line in phase {session.phase}", line, session_id)
        self._check_token(session, session_id, token, line)
        if session.dot_written:
            raise SmtpdWouldDie("data line after the final dot", line, session_id)
        if content != b".":
            return DataLine(session_id, content)
        if not session.dot_asked:
            # The message ends here, what follows races with the commit request, and loses.
            raise SmtpdWouldDie("a lone dot before the end of the message", line, session_id)
        session.dot_written = True
        return EndOfData(session_id)

    def _result(
        self, session: _Session, session_id: str, token: str, response: bytes, line: bytes
    ) -> Effect:
        phase = session.phase
        if phase == "data-line":
            raise SmtpdWouldDie("filter-result in phase data-line", line, session_id)
        self._check_token(session, session_id, token, line)
        if not session.outstanding:
            raise SmtpdWouldDie(f"nothing is asked: {phase} was answered", line, session_id)
        kind, parameter = self._decision(response, line, session_id)
        if kind == "junk" and phase == "commit":
            raise SmtpdWouldDie("junk at commit", line, session_id)
        session.outstanding = False
        if kind == "rewrite" and phase == "commit":
            raise SmtpdWouldHang("rewrite at commit: the session never goes on", line, session_id)
        if kind in ("reject", "disconnect") and not _REPLY.match(parameter):
            raise ClientCut(
                f"{kind} at {phase} without an SMTP reply '[45]dd text'", line, session_id
            )
        return Answer(session_id, phase, kind, parameter)

    def _decision(self, response: bytes, line: bytes, session_id: str) -> tuple[str, bytes]:
        if response in (b"proceed", b"junk"):
            return response.decode(), b""
        word, bar, parameter = response.partition(b"|")
        kind = word.decode("latin-1")
        if not bar:
            raise SmtpdWouldDie("unknown decision, or its parameter is missing", line, session_id)
        if kind not in _WITH_PARAMETER or self.version < DECISION_SINCE.get(kind, (0, 0)):
            raise SmtpdWouldDie("unknown decision", line, session_id)
        if self.version >= (0, 7) and len(parameter) > _MAX_PARAMETER_BYTES:
            raise SmtpdWouldDie("a reply above 16 KiB", line, session_id)
        return kind, parameter

    def _check_token(self, session: _Session, session_id: str, token: str, line: bytes) -> None:
        expected = self._tokens.get(session.phase)
        if token != expected:
            raise SmtpdWouldDie(
                f"the token of {session.phase} is {expected}, not {token}", line, session_id
            )


def hex_ids(first: bytes, second: bytes, line: bytes) -> tuple[str, str]:
    """Read two ids as smtpd does, which takes them for numbers, and give them as it writes them.

    Raises:
        SmtpdWouldDie: one is no number.
    """
    if not (_HEX.match(first) and _HEX.match(second)):
        raise SmtpdWouldDie("session and token are hexadecimal numbers", line)
    return f"{int(first, 16):016x}", f"{int(second, 16):016x}"
