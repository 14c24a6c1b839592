"""A member that only looks on: a filter in a runtime of its own, fed beside the traffic.

It is told what the member would be told at its place in the chain. What it answers is logged, and
nobody waits for it; one that falls too far behind sees no more of the sessions under way.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gevent
import gevent.event
import gevent.socket

from .._process.log import Once, session_logger
from ..errors import UsageError
from ..protocol import EVENTS, Call, Phase
from ..protocol._catalogue import TOKEN_FIRST_BEFORE
from ..protocol._stuffing import stuff_line
from .edits import Digest

if TYPE_CHECKING:
    from .member import Member

_READ_BYTES = 65_536
_START_SECONDS = 60.0
_MOST_BYTES = 16 << 20


class Observer:
    """Feeds an observing member, and logs what it would have done.

    Args:
        member: the member.
        clock: gives the time (monotonic seconds), as for the chain.

    Raises:
        UsageError: the member cannot start.
    """

    def __init__(self, member: Member, clock: Callable[[], float]) -> None:
        from .._runtime import Runtime

        self._member = member
        self._ours, theirs = gevent.socket.socketpair()
        # Before its own runtime makes the application use its own description of smtpd.
        config = member.app.config.wire()
        self._phases: dict[bytes, str] = {}  # what it was asked, by token: smtpd has one for each
        self._messages: dict[bytes, tuple[Digest, Digest]] = {}
        self._dropped: set[bytes] = set()
        self._out = bytearray()
        self._changed = gevent.event.Event()
        self._registered: gevent.event.AsyncResult[None] = gevent.event.AsyncResult()
        self._once = Once()
        self._runtime = Runtime(member.app, socket.socket(fileno=theirs.detach()), clock=clock)
        self._runtime.start()
        gevent.spawn(self._read)
        gevent.spawn(self._write)
        self._send(config.rstrip(b"\n"))
        try:
            self._registered.get(timeout=_START_SECONDS)
        except (gevent.Timeout, ConnectionError) as error:
            raise UsageError(f"{member!r} does not start: {error}") from None
        self._wanted = member.app._registry.registered_reports()
        self._asked = member.app._registry.phases()

    def report(self, key: tuple[str, str], line: bytes) -> None:
        """Tell it a report. Never switches."""
        subsystem, name = key
        if (subsystem, EVENTS[name].wire) in self._wanted:
            self._send(line)
        if name == "link_disconnect":
            sid = line.split(b"|", 6)[5]
            self._messages.pop(sid, None)
            self._dropped.discard(sid)

    def replay(self, line: bytes) -> None:
        """Tell it of a session that another worker had. Never switches."""
        self._runtime.restore(line)

    def ask(self, view: Call) -> None:
        """Ask it what it would answer to a request. Never switches."""
        if not isinstance(view.hook, Phase) or view.session.sid in self._dropped:
            return
        if view.hook.wire in self._asked:
            self._phases[view.token or b""] = view.hook.wire
            self._send(view.line)

    def watch(self, view: Call, source: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
        """Show it a message as it streams by, unchanged."""
        sid = view.session.sid
        head = b"|".join([*view.line.split(b"|", 7)[:7], b""])
        seen = Digest()
        self._messages[sid] = (seen, Digest())
        for batch in source:
            if sid not in self._dropped:
                for line in batch:
                    stuffed = stuff_line(line)
                    seen.add(stuffed)
                    self._send(head + stuffed, sid)
            yield batch
        if sid not in self._dropped:
            self._send(head + b".", sid)

    def end(self) -> None:
        """End it. Switches greenlets."""
        self._ours.shutdown(socket.SHUT_WR)
        self._runtime.join(2.0)
        self._ours.close()

    def _send(self, line: bytes, sid: bytes = b"") -> None:
        if len(self._out) > _MOST_BYTES:
            if sid:
                self._dropped.add(sid)
            self._once.warn("slow", "%r is too slow; it does not see all", self._member)
            return
        self._out += line + b"\n"
        self._changed.set()

    def _write(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            data, self._out = self._out, bytearray()
            try:
                self._ours.sendall(data)
            except OSError:
                return

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                chunk = self._ours.recv(_READ_BYTES)
            except OSError:
                chunk = b""
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._note(line)
        if not self._registered.ready():
            self._registered.set_exception(ConnectionError("it has ended"))

    def _note(self, line: bytes) -> None:
        words = line.split(b"|", 3)
        if words[0] == b"register":
            if words[1] == b"ready":
                self._registered.set(None)
            return
        version = self._member.app.config.protocol
        swapped = version is not None and version < TOKEN_FIRST_BEFORE
        sid, token = (words[2], words[1]) if swapped else (words[1], words[2])
        if words[0] == b"filter-dataline":
            self._note_line(sid, words[3])
        else:
            self._note_answer(sid, self._phases.get(token, "?"), words[3])

    def _note_line(self, sid: bytes, line: bytes) -> None:
        message = self._messages.get(sid)
        if message is None:
            return
        seen, given = message
        if line != b".":
            given.add(line)
            return
        del self._messages[sid]
        if not seen.same_as(given):
            self._log(sid).info(
                "observing %s: it would have edited the message: %d lines, then %d",
                *(self._member.name, seen.lines, given.lines),
            )

    def _note_answer(self, sid: bytes, phase: str, answer: bytes) -> None:
        if answer != b"proceed":
            shown = answer.decode("utf-8", "backslashreplace")
            if phase == "auth":
                shown = shown.partition("|")[0]
            self._log(sid).info("observing %s: %s: %s", self._member.name, phase, shown)

    @staticmethod
    def _log(sid: bytes) -> Any:
        return session_logger(sid.decode("ascii"))
