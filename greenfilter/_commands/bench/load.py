"""The sessions of a load: what smtpd says in each, and what it waits for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from .figures import Figures, Latencies

DEFAULT_SESSIONS = 2000
# A message is written in pieces of this size, each once there is room for it.
_PIECE_BYTES = 64 << 10
_LINE = b"Nothing is read here but how long it takes to read it: seventy bytes."
_REFUSALS = ("reject", "disconnect")
ROOM = ""
"""What a session yields when it waits for room in the output, not for an answer."""

Session = Generator[str, bytes, None]


@dataclass(frozen=True, slots=True)
class Load:
    """How much.

    Args:
        sessions: how many; None for as many as there is time for.
        concurrency: how many at once.
        messages: in each session.
        size: bytes of each message.
        seconds: after which no session is begun; None for no limit.
    """

    sessions: int | None = DEFAULT_SESSIONS
    concurrency: int = 100
    messages: int = 1
    size: int = 2048
    seconds: float | None = None


class Script:
    """Makes sessions.

    A session is a generator: it yields the phase whose answer it waits for, and is sent the
    decision as on the wire (for ``data-line``, nothing once the final dot has come back).

    Args:
        load: what each session brings.
        hooks: what the filter registered, ``smtp-in`` only: names of events and phases.
        write: takes whole lines for the filter.
        figures: where to count.
    """

    def __init__(
        self,
        load: Load,
        hooks: tuple[frozenset[str], frozenset[str]],
        write: Callable[[bytes], None],
        figures: Figures,
    ) -> None:
        self._load = load
        self._events, self._phases = hooks
        self._write = write
        self._figures = figures
        self._tokens = {phase: b"%016x" % random.getrandbits(64) for phase in self._phases}
        self._message = _message(load.size)

    def session(self, number: int) -> tuple[bytes, Session]:
        """Return the id of a session and the session, not yet begun."""
        sid = b"%016x" % (random.getrandbits(32) << 32 | number)
        return sid, self._conduct(sid, number)

    def _conduct(self, sid: bytes, number: int) -> Session:
        address = b"192.0.%d.%d" % (number >> 8 & 255, number & 255)
        self._report(
            sid, "link-connect", b"client.example.net|pass|%b:4711|192.0.2.25:25" % address
        )
        goes_on = yield from self._ask(sid, "connect", b"client.example.net|" + address)
        if goes_on:
            self._report(sid, "link-greeting", b"mx.example.org")
            goes_on = yield from self._ask(sid, "ehlo", b"client.example.net")
            if goes_on:
                self._report(sid, "link-identify", b"EHLO|client.example.net")
                ended = False
                for turn in range(self._load.messages):
                    ended = yield from self._transaction(sid, number, turn)
                    if ended:
                        break
                if not ended:
                    yield from self._ask(sid, "quit", b"")
        self._report(sid, "link-disconnect", None)
        self._figures.sessions += 1

    def _transaction(self, sid: bytes, number: int, turn: int) -> Generator[str, bytes, bool]:
        """Send one message. Returns whether the filter has cut the client off."""
        sender = b"sender%d@example.net" % number
        recipient = b"recipient%d@example.org" % turn
        decision = yield from self._decide(sid, "mail-from", sender)
        if decision in _REFUSALS:
            return decision == "disconnect"
        message_id = b"%08x" % random.getrandbits(32)
        self._report(sid, "tx-begin", message_id)
        self._report(sid, "tx-mail", message_id + b"|ok|" + sender)
        decision = yield from self._decide(sid, "rcpt-to", recipient)
        if decision not in _REFUSALS:
            self._report(sid, "tx-envelope", message_id + b"|" + message_id + b"00000001")
            self._report(sid, "tx-rcpt", message_id + b"|ok|" + recipient)
            decision = yield from self._decide(sid, "data", b"")
        if decision not in _REFUSALS:
            self._report(sid, "tx-data", message_id + b"|ok")
            if "data-line" in self._phases:
                yield from self._data(sid)
            decision = yield from self._decide(sid, "commit", b"")
        if decision in _REFUSALS:
            self._report(sid, "tx-rollback", message_id)
        else:
            self._report(sid, "tx-commit", message_id + b"|%d" % self._load.size)
            self._figures.messages += 1
        self._report(sid, "tx-reset", message_id)
        return decision == "disconnect"

    def _data(self, sid: bytes) -> Session:
        head = b"filter|0.7|%b|smtp-in|data-line|%b|%b|" % (_now(), sid, self._tokens["data-line"])
        lines = self._message
        step = max(1, _PIECE_BYTES // (len(head) + len(_LINE)))
        for begin in range(0, len(lines), step):
            piece = lines[begin : begin + step]
            self._send(head + (b"\n" + head).join(piece) + b"\n", len(piece))
            yield ROOM
        begun = time.perf_counter()
        self._send(head + b".\n", 1)
        yield "data-line"
        self._note("data-line", begun)

    def _ask(self, sid: bytes, phase: str, argument: bytes) -> Generator[str, bytes, bool]:
        """Ask, and say whether the session goes on."""
        decision = yield from self._decide(sid, phase, argument)
        return decision not in _REFUSALS

    def _decide(self, sid: bytes, phase: str, argument: bytes) -> Generator[str, bytes, str]:
        if phase not in self._phases:
            return "proceed"
        begun = time.perf_counter()
        words = (b"filter|0.7", _now(), b"smtp-in", phase.encode(), sid, self._tokens[phase])
        self._send(b"|".join([*words, argument]) + b"\n", 1)
        answer = yield phase
        self._note(phase, begun)
        decision = answer.partition(b"|")[0].decode("ascii", "replace")
        self._figures.decisions[decision] += 1
        return decision

    def _report(self, sid: bytes, event: str, fields: bytes | None) -> None:
        if event in self._events:
            words = (b"report|0.7", _now(), b"smtp-in", event.encode(), sid)
            self._send(b"|".join([*words, *([] if fields is None else [fields])]) + b"\n", 1)

    def _send(self, data: bytes, lines: int) -> None:
        self._figures.lines += lines
        self._figures.bytes += len(data)
        self._write(data)

    def _note(self, phase: str, begun: float) -> None:
        latencies = self._figures.latencies.get(phase)
        if latencies is None:
            latencies = self._figures.latencies[phase] = Latencies()
        latencies.add(time.perf_counter() - begun)


def _now() -> bytes:
    return b"%.6f" % time.time()


def _message(size: int) -> list[bytes]:
    """Make the lines of a message, as close to a size as whole lines come."""
    head = [b"From: sender@example.net", b"To: recipient@example.org", b"Subject: load", b""]
    rest = size - sum(len(line) + 1 for line in head)
    return head + [_LINE] * max(1, rest // (len(_LINE) + 1))
