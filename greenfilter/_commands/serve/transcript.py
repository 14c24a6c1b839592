"""What the server tells: lines for a person, or one JSON object per line for a program.

Each JSON object has ``event``, ``time`` (seconds since 1970), ``session`` if it is about one, and
what the method of that event here is given. Events: listening, note, filter-started, filter-failed,
log, protocol, wrong, connected, client, server, tls, waits, decided, filtered, accepted, failed,
disconnected.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..._smtpd.oracle import ClientCut, OracleError, SmtpdWouldDie

if TYPE_CHECKING:
    from ..._smtpd.model import Message

_MAX_CHANGES = 20
# What would move the cursor, or worse; and bytes that are not UTF-8.
_UNSHOWN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\udc80-\udcff]")
_SESSION_ID = re.compile(r"\b[0-9a-f]{16}\b")
_COLOURS = {"2": "green", "3": "green", "4": "yellow", "5": "red"}
# Longest phase and a usual name; longer ones only move the column.
_PHASE_WIDTH, _NAME_WIDTH = 9, 16


class Transcript:
    """Writes events as they happen. No method switches greenlets.

    Args:
        write: takes a line; it may hold ANSI colours unless ``as_json``.
        as_json: write JSON objects.
        wants_protocol: tell of each line between smtpd and the filter too.
    """

    def __init__(
        self, write: Callable[[str], None], as_json: bool = False, wants_protocol: bool = False
    ) -> None:
        self.wants_protocol = wants_protocol or as_json
        self._write = write
        self._as_json = as_json
        self._numbers: dict[str, int] = {}
        self._next_number = itertools.count(1)

    def listening(self, address: str, version: str) -> None:
        """Show that the server can be connected to."""
        text = f"listening on {address}, protocol {version}; Ctrl-C ends"
        self._emit("listening", "", _style(text, bold=True), address=address, version=version)

    def note(self, text: str) -> None:
        """Show a note about the server itself."""
        self._emit("note", "", _style(text), note=text)

    def filter_started(self, name: str, again: bool) -> None:
        """Show that there is a new process of the filter."""
        text = f"filter {name} " + ("started again for new sessions" if again else "started")
        self._emit("filter-started", "", _style(text, fg="blue"), name=name, again=again)

    def not_started(self, error: str, goes_on: bool) -> None:
        """Show that the filter could not be started."""
        after = "the old code goes on" if goes_on else "no mail until its file changes"
        self._emit("filter-failed", "", _loud(f"{error} ({after})"), error=error, goes_on=goes_on)

    def log(self, line: str) -> None:
        """Show a line of the filter's standard error; greenfilter's own lines name the session."""
        ids = [word for word in _SESSION_ID.findall(line) if word in self._numbers]
        self._emit("log", ids[0] if ids else "", _style(f"log: {line}", dim=True), line=line)

    def protocol(self, direction: str, line: str, session_id: str) -> None:
        """Show a line that passed between smtpd and the filter, credentials hidden."""
        text = _style(f"   {direction} {line}", dim=True)
        self._emit("protocol", session_id, text, direction=direction, line=line)

    def wrong(self, error: OracleError) -> None:
        """Show that the filter did what smtpd does not forgive."""
        effect, means = "hang", "real smtpd would leave this session hanging"
        if isinstance(error, SmtpdWouldDie):
            effect, means = "die", "real smtpd would end here, and all mail with it"
        elif isinstance(error, ClientCut):
            effect, means = "cut", "real smtpd cuts this client"
        elif type(error) is OracleError:
            effect, means = "end", "the filter did not end as it should"
        reason = str(error).partition("\n")[0]  # what follows was logged
        text = _loud(f"{means}: {reason}")
        self._emit("wrong", error.session_id or "", text, effect=effect, error=reason)

    def connected(
        self, session_id: str, src: str, rdns: str, fcrdns: str, outgoing: bool = False
    ) -> None:
        """Show that a client connected, or (outgoing) the server where mail is relayed."""
        self._numbers[session_id] = next(self._next_number)
        what = "relays to" if outgoing else "connected from"
        text = _style(f"-- {what} {src} ({rdns}, {fcrdns}), session {session_id}", bold=True)
        fields = {"src": src, "rdns": rdns, "fcrdns": fcrdns, "outgoing": outgoing}
        self._emit("connected", session_id, text, **fields)

    def client(self, session_id: str, line: str) -> None:
        """Show a line that the client said, credentials hidden."""
        text = _style(f"C: {line}", fg="cyan")
        self._emit("client", session_id, text, line=line)

    def server(self, session_id: str, line: str) -> None:
        """Show a line that the server said."""
        text = _style(f"S: {line}", fg=_COLOURS.get(line[:1]))
        self._emit("server", session_id, text, line=line)

    def tls(self, session_id: str, ciphers: str) -> None:
        """Show that TLS is up."""
        self._emit("tls", session_id, _style(f"-- TLS {ciphers}"), ciphers=ciphers)

    def waits(self, session_id: str, phase: str, handlers: Sequence[str], seconds: float) -> None:
        """Show that the filter has not answered for a while, and the client waits."""
        text = f"no answer for {seconds:g} s; smtpd would wait for it without end"
        text = f"   {_who(phase, handlers)} {_style(text, fg='yellow')}"
        fields = {"phase": phase, "handlers": list(handlers), "seconds": seconds}
        self._emit("waits", session_id, text, **fields)

    def decided(
        self,
        session_id: str,
        phase: str,
        decision: str,
        handlers: Sequence[str],
        seconds: float | None,
    ) -> None:
        """Show what the filter answered to a request.

        Args:
            session_id: of the client.
            phase: on the wire.
            decision: as on the wire, credentials hidden.
            handlers: who may have decided.
            seconds: how long it took.
        """
        colour = "magenta" if decision != "proceed" else None
        shown = _style(decision, fg=colour, bold=colour is not None)
        text = f"   {_who(phase, handlers)} {shown} {_duration(seconds)}"
        fields = {"phase": phase, "decision": decision, "handlers": list(handlers)}
        self._emit("decided", session_id, text, **fields, seconds=seconds)

    def filtered(
        self,
        session_id: str,
        handlers: Sequence[str],
        seconds: float | None,
        changes: list[str] | None,
        *,
        refused: bool = False,
    ) -> None:
        """Show that the filter passed a message on.

        Args:
            session_id: of the client.
            handlers: who may have changed it.
            seconds: how long its end took.
            changes: ``+ line`` and ``- line``; None where it is too long to be compared.
            refused: it was refused, so that nobody sees what became of its lines.
        """
        verdict = "message left as it was" if changes == [] else "message changed"
        if refused:
            verdict = "message refused"
        text = f"   {_who('data-line', handlers)} {verdict} {_duration(seconds)}"
        fields = {
            "handlers": list(handlers),
            "seconds": seconds,
            "changes": changes,
            "refused": refused,
        }
        shown = (changes or [])[:_MAX_CHANGES]
        more = len(changes or []) - len(shown)
        lines = [_style(f"      {line}", fg="magenta") for line in shown]
        lines += [f"      ... and {more} lines more"] if more else []
        self._emit("filtered", session_id, "\n".join([text, *lines]), **fields)

    def accepted(self, session_id: str, message: Message, path: str | None) -> None:
        """Show that a message was accepted, and the file that it was stored in, if any."""
        words = ["accepted", message.message_id, f"{len(message.data)} bytes"]
        words += ["marked as junk"] if message.junk else []
        words += [f"stored in {path}"] if path else []
        fields = {
            "message_id": message.message_id,
            "mail_from": message.mail_from,
            "rcpt_to": message.rcpt_to,
            "bytes": len(message.data),
            "junk": message.junk,
            "path": path,
        }
        text = _style("-- " + ", ".join(words), bold=True)
        self._emit("accepted", session_id, text, **fields)

    def relayed(
        self, session_id: str, message_id: str, rcpt_to: Sequence[str], refused: Mapping[str, str]
    ) -> None:
        """Show that the other server took a message.

        Args:
            session_id: of the connection to it.
            message_id: smtpd's.
            rcpt_to: the recipients that it took it for.
            refused: those that it refused, each with its reply.
        """
        lines = [_style(f"-- relayed {message_id} to {', '.join(rcpt_to)}", bold=True)]
        lines += [_loud(f"-- not to {address}: {reply}") for address, reply in refused.items()]
        fields = {"message_id": message_id, "rcpt_to": list(rcpt_to), "refused": dict(refused)}
        self._emit("relayed", session_id, "\n".join(lines), **fields)

    def failed(self, session_id: str, error: str) -> None:
        """Show what went wrong around a session: a TLS handshake, a disk, a relay."""
        self._emit("failed", session_id, _loud(f"-- {error}"), error=error)

    def disconnected(self, session_id: str) -> None:
        """Show that a session is over."""
        self._emit("disconnected", session_id, "-- disconnected")
        self._numbers.pop(session_id, None)

    def _emit(self, event: str, session_id: str, text: str, **fields: Any) -> None:
        now = time.time()
        if self._as_json:
            ids = {"session": session_id} if session_id else {}
            self._write(json.dumps({"event": event, "time": round(now, 6), **ids, **fields}))
            return
        moment = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1000):03d}"
        number = self._numbers.get(session_id)
        head = f"{_style(moment, dim=True)} {f'#{number}' if number else '':>4} "
        first, *rest = text.split("\n")
        for line in [head + first, *(" " * 18 + more for more in rest)]:
            self._write(line.encode("utf-8", "backslashreplace").decode())


def _style(text: str, **style: Any) -> str:
    return click.style(_UNSHOWN.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", text), **style)


def _who(phase: str, handlers: Sequence[str]) -> str:
    return f"{phase:{_PHASE_WIDTH}}  {', '.join(handlers) or 'filter':{_NAME_WIDTH}}"


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else _style(f"({seconds * 1000:.1f} ms)", dim=True)


def _loud(text: str) -> str:
    return _style(text, fg="red", bold=True)
