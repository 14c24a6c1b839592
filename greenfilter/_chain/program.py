"""A member that is a program of somebody else's, as a filter whose handlers ask the program."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._filter.app import Filter
from .._filter.context import Context
from .._filter.handlers import Handler, Policy, policy
from ..errors import UsageError
from ..protocol import EVENTS, NEWEST, PHASES, TEMPFAIL, Decision, Phase, at_version

if TYPE_CHECKING:
    from .child import Child

# Where smtpd looks for a filter that is no path: OpenBSD, ports, Debian.
_DIRECTORIES = (
    "/usr/libexec/opensmtpd",
    "/usr/local/libexec/opensmtpd",
    "/usr/libexec/smtpd",
    "/usr/lib/opensmtpd",
)

# Reports that are kept for a program that is started anew.
_KEPT = (
    *("link_connect", "link_greeting", "link_identify", "link_tls", "link_auth"),
    *("tx_begin", "tx_mail", "tx_rcpt", "tx_envelope", "tx_data", "tx_reset"),
)
_EVENTS = frozenset(event.wire.encode() for event in EVENTS.values())


class Program(Filter):
    """A program that speaks smtpd-filters(7), as a filter.

    Its hooks are known when it has been started (:meth:`configure`).

    Args:
        command: for the shell, as after ``proc-exec`` in smtpd.conf.
        deadline: seconds for each answer, and for each part of a message.
        on_error: what answers when it is late, has died or writes nonsense.
        protocol: version of the protocol to speak to it; None is the server's own.
        name: for logs; None is the file's name.

    Raises:
        UsageError: there is no such program.
    """

    def __init__(
        self,
        command: str,
        *,
        deadline: float = 30.0,
        on_error: Policy = "tempfail",
        protocol: tuple[int, int] | None = None,
        name: str | None = None,
    ) -> None:
        self.command = find_program(command)
        words = shlex.split(self.command)
        super().__init__(name or os.path.basename(words[0]), deadline=deadline, on_error=on_error)
        self.protocol = protocol
        self.child: Child | None = None

    def __repr__(self) -> str:
        return f"Program({self.command!r})"

    def is_empty(self) -> bool:
        """Whether it has no hook: it tells them only when it runs."""
        return False

    def configure(self, engine: Any) -> None:
        """Start it, and take its hooks. Switches greenlets.

        Raises:
            UsageError: it cannot be run, or does not register as smtpd wants it.
        """
        from .child import Child

        if self.child is not None:
            return
        limit = self.max_message_bytes if engine is None else engine.app.max_message_bytes
        child = Child(self.command, self.name, self._config(), limit)
        child.start()
        self.child = child
        self._take_hooks(child)

    def _config(self) -> bytes:
        """Give what smtpd said of itself, with the protocol that is spoken."""
        lines = self.config.wire().splitlines(keepends=True)
        if self.protocol is not None:
            told = [b"config|protocol|%d.%d\n" % self.protocol] if self.protocol >= NEWEST else []
            lines = told + [line for line in lines if not line.startswith(b"config|protocol|")]
        return b"".join(lines)

    def on_end(self) -> None:
        """End it. Switches greenlets."""
        if self.child is not None:
            self.child.stop()

    def _take_hooks(self, child: Child) -> None:
        wires = {phase.wire: phase for phase in PHASES.values()}
        for wire in child.oracle.phases - {"data-line"}:
            phase = wires[wire]
            self.filters[phase.name] = self._handler(f"filter.{phase.name}", self._ask, phase)
        if "data-line" in child.oracle.phases:
            self.data = ("lines", self._handler("lines", self._edit, PHASES["commit"], 2))
        events = {event.wire: event.name for event in EVENTS.values()}
        told = {(subsystem, events[wire]) for subsystem, wire in child.oracle.reports}
        for subsystem in sorted({subsystem for subsystem, _ in told} | {"smtp-in"}):
            told.add((subsystem, "link_disconnect"))
            told |= {(subsystem, name) for name in _KEPT}
        for subsystem, name in sorted(told):
            count = 1 + len(EVENTS[name].fields)
            handler = self._handler(f"report.{name}", self._tell, None, count)
            self.reports[subsystem, name] = handler

    def _handler(self, hook: str, fn: Any, phase: Phase | None, count: int = 0) -> Handler:
        decision = policy(self.on_error, None, None)
        if phase is not None and decision.kind not in phase.decisions:
            decision = TEMPFAIL
        handler = Handler(
            fn,
            hook,
            count or 1 + len(phase.fields if phase is not None else ()),
            deadline=self.deadline,
            on_error=decision,
            thread=False,
            cancel_on_close=False,
        )
        handler.where = None
        return handler

    # Its handlers

    def _ask(self, ctx: Context, *values: Any) -> Decision:
        assert self.child is not None
        assert isinstance(ctx.hook, Phase)
        line = self._translated(ctx.line)
        session = self.child.session(ctx.session.sid, line)
        return session.ask(line, ctx.body, ctx.hook.wire)

    def _edit(self, ctx: Context, lines: Iterator[bytes]) -> Iterator[bytes]:
        assert self.child is not None
        line = self._translated(ctx.line)
        message = self.child.session(ctx.session.sid, line).begin_message(line)
        try:
            for content in lines:
                message.send(content)
                yield from message.output()
            message.end()
            while not message.ended:
                message.wait()
                yield from message.output()
            yield from message.output()
        finally:
            message.close()

    def _tell(self, ctx: Context, *values: Any) -> None:
        self._report(ctx.session.sid, ctx.line)

    def on_replay(self, line: bytes) -> None:
        """Tell it of a session that the program of another worker knew. Never switches."""
        words = line.split(b"|", 6)
        if words[4] in _EVENTS:  # no memo of the chain's
            self._report(words[5], line)

    def _report(self, sid: bytes, line: bytes) -> None:
        assert self.child is not None
        words = line.split(b"|", 5)
        line = self._translated(line)
        self.child.session(sid, line).keep(line, words[4])
        self.child.report(line, words[3].decode(), words[4].decode())
        if words[4] == b"link-disconnect":
            self.child.forget(sid)

    def _translated(self, line: bytes) -> bytes:
        return line if self.protocol is None else at_version(line, self.protocol)


def find_program(command: str) -> str:
    """Give a command with the whole path of its program, where smtpd would look for it.

    Raises:
        UsageError: there is no such program, or it is no command.
    """
    if any(ord(char) < 32 or char == "\x7f" for char in command):
        raise UsageError(f"{command!r} is no command: it has line breaks or control characters")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"{command!r} is no command: {error}") from error
    if not words:
        raise UsageError("the command is empty")
    name = words[0]
    if os.path.isabs(name):
        found = shutil.which(name)
    else:
        found = shutil.which(name, path=os.pathsep.join(_DIRECTORIES))
    if found is None:
        if os.path.exists(name) and os.path.isabs(name):
            raise UsageError(f"{name}: not executable")
        where = "" if os.path.isabs(name) else f" in {', '.join(_DIRECTORIES)}; give its whole path"
        raise UsageError(f"{name}: no such program{where}")
    return found + command.lstrip()[len(name) :] if command.lstrip().startswith(name) else command
