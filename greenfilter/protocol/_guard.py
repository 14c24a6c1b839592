"""The guard: it knows what smtpd is owed, and lets nothing else out.

smtpd ends, and with it all mail, when a filter answers twice, answers what was not asked, or
writes a line that is not legal (protocol recordings ``misbehave-*``). Every line for
smtpd is made here or allowed here, so here is the one place where that is prevented.

Its clock is the caller's: times are seconds of any monotonic clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..errors import DecisionError
from ._call import Call, Stream
from ._catalogue import DECISION_SINCE, DECISION_SINCE_RELEASE, PHASES, TOKEN_FIRST_BEFORE, Phase
from ._config import Config
from ._decision import BYPASS, PROCEED, Decision, reject

TEMPFAIL = reject(451, "Temporary failure, please try again later", enhanced="4.3.0")
LINE_TOO_LONG = reject(554, "Message has a line that cannot pass the filter", enhanced="5.6.0")

# smtpd 6.8 keeps 2,047 bytes of an answer, smtpd 7.8 takes a data line below 64,000 bytes and any
# other answer up to 16 KiB. What an answer begins with takes 50 bytes.
_MAX_DATA_LINE, _MAX_DATA_LINE_OLD = 63_900, 1_997
_MAX_ANSWER, _MAX_ANSWER_OLD = 16_000, 1_997

_AUTH = PHASES["auth"]
# Whatever refuses AUTH makes smtpd log the command, password and all. A response that is not base64
# is refused by smtpd itself, with 501, and logged as "AUTH PLAIN (...)".
_REFUSED_AUTH = Decision("rewrite", "PLAIN =")
# What smtpd does not know is refused and logged just so.
_AUTH_PARAMETER = re.compile(r"(?:PLAIN|LOGIN)(?: |\Z)", re.IGNORECASE)
_BRACKETED = (PHASES["mail_from"], PHASES["rcpt_to"])
_BAR: Final = ord("|")
_ZERO: Final = ord("0")
_SID_FIRST: Final = _ZERO + TOKEN_FIRST_BEFORE[1]
_REFUSALS = ("reject", "disconnect")
_LET_PASS = (PROCEED.kind, BYPASS.kind)
_WITHOUT_VALUE = ("proceed", "junk")
# What is not of this form becomes "421 Internal server error" to the client.
_REPLY = re.compile(rb"(?:reject|disconnect)\|[45]\d\d [^\r\n\0]+\Z")
_NO_LINE = re.compile(rb"[\r\n\0]")


def _check_text(decision: Decision) -> None:
    # "proceed|x" and a bare "reject" end smtpd.
    if bool(decision.value) == (decision.kind in _WITHOUT_VALUE):
        raise DecisionError(f"not a decision that smtpd takes: {decision!r:.80}")
    if decision.kind in _REFUSALS and not _REPLY.match(decision.wire):
        raise DecisionError(f"not an SMTP reply: {decision.value[:80]!r}")
    if _NO_LINE.search(decision.wire):
        raise DecisionError(f"a {decision.kind} cannot send CR, LF or NUL")


def _check_length(decision: Decision, old: bool) -> None:
    size = len(decision.wire)
    if size > (_MAX_ANSWER_OLD if old else _MAX_ANSWER):
        raise DecisionError(f"a {decision.kind} of {size} bytes is longer than smtpd takes")


def _ids(call: Call) -> bytes:
    """Return the ids that an answer begins with: in old protocols the token comes first."""
    line, body = call.line, call.body
    # Looked at byte by byte: a slice and a look-up in a set take 0.1 us.
    if line[9] < _SID_FIRST and line[9] >= _ZERO and line[10] == _BAR and line[7:9] == b"0.":
        return b"%b|%b|" % (line[body - 17 : body - 1], call.session.sid)
    return line[body - 34 : body]


def last_resort(call: Call) -> Decision:
    """Return the answer to a request when nothing else is legal; unknown phases cannot refuse."""
    is_refusable = isinstance(call.hook, Phase) and TEMPFAIL.kind in call.hook.decisions
    return TEMPFAIL if is_refusable else PROCEED


class Guard:
    """Makes every answer, exactly one for each request.

    Attributes:
        config: what smtpd said of itself.
    """

    def __init__(self) -> None:
        self.config = Config()
        # One dict for each length of deadline, oldest first: nothing is sorted (0.4 us for start
        # and stop, where a heap or a timer takes 2 to 3).
        self._owed: dict[float, dict[Call, float]] = {}

    def expect(self, call: Call, deadline: float, now: float) -> None:
        """Note that smtpd waits for an answer to a request.

        Args:
            call: the request.
            deadline: seconds from now after which :meth:`expired` gives it.
            now: the time.
        """
        self.expect_in(self.group(deadline), call, now + deadline)

    def expect_in(self, group: dict[Call, float], call: Call, expires: float) -> None:
        """Do as :meth:`expect`, with the group of the deadline at hand (0.1 us less)."""
        call.owed = group
        group[call] = expires

    def group(self, deadline: float) -> dict[Call, float]:
        """Return the group of the requests with one deadline, for :meth:`expect_in`."""
        return self._owed.setdefault(deadline, {})

    def expired(self, now: float) -> list[Call]:
        """Return the requests that wait past their deadline. Each stays owed until answered."""
        late: list[Call] = []
        for owed in self._owed.values():
            try:
                if next(iter(owed.values()), now + 1) <= now:
                    late += [call for call, expires in list(owed.items()) if expires <= now]
            except RuntimeError:
                continue  # a thread has just answered one; the next call sees the rest
        return late

    def owes(self) -> Iterator[Call]:
        """Return all requests whose answers smtpd still waits for."""
        for owed in list(self._owed.values()):
            yield from list(owed)

    def is_owed(self, call: Call) -> bool:
        """Return whether smtpd still waits for the answer to this request."""
        return call.owed is not None and call in call.owed

    def forget(self, call: Call) -> bool:
        """Note that the answer to a request is not owed any more; return whether it was.

        Safe to call from any thread: of two, one gets True.
        """
        # dict.pop is one step under the GIL.
        return call.owed is not None and call.owed.pop(call, None) is not None

    def proceed(self, call: Call) -> bytes | None:
        """Answer a request other than commit with proceed. As :meth:`answer`, at half its cost."""
        if not self.forget(call):
            return None
        return b"filter-result|" + _ids(call) + b"proceed\n"

    def answer(self, call: Call, decision: Decision) -> bytes | None:
        """Answer a request. Safe to call from any thread.

        Returns:
            The line to write, or None if the request was answered before.

        Raises:
            DecisionError: the phase or the server does not allow the decision; the request is
                still owed its answer.
        """
        message = call.committed
        if message is not None and message.outcome is not None:
            decision = message.outcome
        elif decision is not PROCEED:
            decision = self._legal(call, decision)
        if not self.forget(call):
            return None
        if message is not None:
            call.session.last_stream = None
        return b"filter-result|%b%b\n" % (_ids(call), decision.wire)

    def decide_commit(self, stream: Stream, decision: Decision) -> None:
        """Fix how commit will be answered for a message; the first to refuse wins.

        Raises:
            DecisionError: it is neither a refusal nor proceed, which changes nothing.
        """
        if decision.kind in _LET_PASS:
            return
        if decision.kind not in _REFUSALS:
            raise DecisionError(f"{decision.kind} cannot be kept for commit; reject or disconnect")
        _check_text(decision)
        _check_length(decision, stream.old)
        if stream.outcome is None:
            stream.outcome = decision

    def data(self, stream: Stream, lines: list[bytes], ended: bool = False) -> bytes:
        """Write lines of a message.

        A line that smtpd would shorten, or take for the end of the message, is left out, and
        commit will refuse the message.

        Args:
            stream: the message.
            lines: dot-stuffed, without their LF.
            ended: these are the last, and the final dot follows.

        Returns:
            What to write; nothing once the message has ended or its session has.
        """
        if not stream.open:
            return b""
        head = stream.head
        out = b""
        if lines:
            out = head + (b"\n" + head).join(lines) + b"\n"
            limit = _MAX_DATA_LINE_OLD if stream.old else _MAX_DATA_LINE
            if (
                max(map(len, lines)) > limit
                or out.count(b"\n") != len(lines)
                or b"\0" in out
                or b"|.\n" in out
            ):
                out = self._only_legal(stream, lines, limit)
        if ended:
            out += head + b".\n"
            stream.open = False
            if stream.damaged:
                self.decide_commit(stream, LINE_TOO_LONG)
        return out

    def may_pass(self, stream: Stream, data: bytes) -> bool:
        """Return whether lines of a message may go to smtpd just as they are.

        Args:
            stream: the message.
            data: whole lines that begin with the message's head, each of them, without a final
                dot.

        Returns:
            Whether :meth:`data` would write them unchanged.
        """
        if not stream.open or b"\0" in data or b"|.\n" in data:
            return False
        most = len(stream.head) + (_MAX_DATA_LINE_OLD if stream.old else _MAX_DATA_LINE) + 1
        start, end = 0, len(data)
        while end - start > most:  # no line is longer if one ends in each window
            start = data.rfind(b"\n", start, start + most) + 1
            if not start:
                return False
        return True

    def _only_legal(self, stream: Stream, lines: list[bytes], limit: int) -> bytes:
        legal = [
            line
            for line in lines
            if len(line) <= limit and line != b"." and b"\n" not in line and b"\0" not in line
        ]
        if len(legal) != len(lines):
            stream.damaged = True
        return b"".join(stream.head + line + b"\n" for line in legal)

    def check(self, call: Call, decision: Decision) -> None:
        """Check a decision that is not sent, or not yet.

        Raises:
            DecisionError: the phase or the server does not allow it.
        """
        if decision is not PROCEED:
            self._legal(call, decision)

    def _legal(self, call: Call, decision: Decision) -> Decision:
        """Return the decision as it can be sent at this phase."""
        phase = call.hook
        if not isinstance(phase, Phase):
            raise DecisionError("a report takes no decision")
        kind = decision.kind
        if kind == BYPASS.kind:
            return PROCEED
        if kind not in phase.decisions:
            allowed = ", ".join(sorted(phase.decisions))
            raise DecisionError(f"{kind} is not legal at {phase.wire} (legal: {allowed})")
        version = call.version
        if version < DECISION_SINCE.get(kind, version) or not self._is_in_release(kind):
            raise DecisionError(f"{kind} needs smtpd 7.6 or later")
        _check_text(decision)
        if kind == "reject" and phase.wire == "connect":
            # smtpd would leave the client connected, without a banner and good for nothing.
            decision = Decision("disconnect", decision.value)
        elif phase is _AUTH and kind in _REFUSALS:
            decision = _REFUSED_AUTH
        elif phase is _AUTH and kind == "rewrite" and not _AUTH_PARAMETER.match(decision.value):
            raise DecisionError("rewrite at auth takes PLAIN or LOGIN, and a response")
        elif kind == "rewrite" and phase in _BRACKETED and not decision.value.startswith("<"):
            decision = Decision("rewrite", f"<{decision.value}>")
        _check_length(decision, version < (0, 7))
        return decision

    def _is_in_release(self, kind: str) -> bool:
        since, release = DECISION_SINCE_RELEASE.get(kind), self.config.release
        return since is None or release is None or release >= since
