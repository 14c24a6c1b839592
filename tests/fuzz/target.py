"""What is fuzzed: whatever smtpd says and handlers answer, only legal lines come out."""

from __future__ import annotations

import struct

from greenfilter.errors import DecisionError
from greenfilter.protocol import JUNK, PROCEED, Call, Decision
from tests.protocol.driver import Driver
from tests.protocol.legality import Judge

_KINDS = ["proceed", "junk", "reject", "disconnect", "rewrite", "report", "nonsense"]


class Input:
    """A fuzzer's bytes: first two that choose, the rest is smtpd's output.

    Attributes:
        cut: length of the pieces in which it comes.
        choice: drives the answers.
        wire: smtpd's output.
    """

    def __init__(self, data: bytes) -> None:
        cut, self.choice = struct.unpack("BB", data[:2].ljust(2, b"\0"))
        self.wire = data[2:]
        self.cut = cut * 16 or len(self.wire) or 1

    @staticmethod
    def of(wire: bytes, cut: int = 0, choice: int = 0) -> bytes:
        """Give the bytes that stand for a recording."""
        return struct.pack("BB", cut, choice) + wire

    def pieces(self) -> list[bytes]:
        """Give smtpd's output as it comes."""
        return [self.wire[i : i + self.cut] for i in range(0, len(self.wire), self.cut)]


def check(data: bytes) -> None:
    """Feed an input to parser and guard, answer what is asked, and judge what is written.

    Raises:
        AssertionError: smtpd would not survive it, or a request was left without an answer.
    """
    given = Input(data)
    asked = 0

    def decide(call: Call) -> Decision:
        nonlocal asked
        asked += 1
        _read_all(call)
        if given.choice == 0:
            return PROCEED
        kind = _KINDS[(given.choice + asked) % len(_KINDS)]
        if kind in ("proceed", "junk"):
            return PROCEED if kind == "proceed" else JUNK
        # What the client said comes back in the answer.
        value = call.line[-(given.choice * 7) :].decode("utf-8", "surrogateescape")
        if not value:
            raise DecisionError("empty")
        return Decision(kind, value)

    judge, driver = Judge(), Driver(decide, max_sessions=64)
    for piece in given.pieces():
        judge.asks(piece)
        judge.told(driver.feed(piece))
    assert len(driver.connection.sessions) <= 64


def _read_all(call: Call) -> None:
    """Ask for everything that is known, as handlers do. Only known errors may come of it."""
    session = call.session
    for name in ("src", "dst", "rdns", "fcrdns", "greeting", "identity", "method", "username"):
        getattr(session, name)
    if session.tx is not None:
        for name in ("message_id", "mail_from", "rcpt_to", "envelope_ids"):
            getattr(session.tx, name)
    call.values()
