"""A member that is a program of somebody else's, as a filter whose handlers ask the program."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._filter.app import Filter
from .._filter.context import Context
from .._filter.handlers import Handler, Policy, parse_policy
from .._filter.registry import Registry
from .._process.words import split_command
from ..errors import UsageError
from ..protocol import EVENTS, NEWEST, PHASES, TEMPFAIL, Decision, Phase, at_version

if TYPE_CHECKING:
    from .child import Child

# Where smtpd looks for a filter that is not a path: OpenBSD, ports, Debian.
_DIRECTORIES = (
    "/usr/libexec/opensmtpd",
    "/usr/local/libexec/opensmtpd",
    "/usr/libexec/smtpd",
    "/usr/lib/opensmtpd",
)

# Reports that are kept for a program that is started again.
_KEPT = [event.name for event in EVENTS.values() if event.state or event.ends == "transaction"]
_EVENTS = frozenset(event.wire.encode() for event in EVENTS.values())


class Program(Filter):
    """A program that speaks smtpd-filters(7), as a filter.

    Its hooks are known when it has been started (:meth:`start`).

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
        self._registry: _ProgramRegistry = _ProgramRegistry(self)

    def __repr__(self) -> str:
        return f"Program({self.command!r})"

    def start(self, calls: Any) -> None:
        """Start it, and take its hooks. Switches greenlets.

        Args:
            calls: as :meth:`Registry.configure`.

        Raises:
            UsageError: it cannot be run, or does not register as smtpd wants it.
        """
        from .child import Child

        if self.child is not None:
            return
        limit = self.max_message_bytes if calls is None else calls.app.max_message_bytes
        child = Child(self.command, self.name, self._config(), limit)
        child.start()
        self.child = child
        self._take_hooks(child)

    def _config(self) -> bytes:
        """Return what smtpd said of itself, with the protocol that is spoken."""
        lines = self.config.wire().splitlines(keepends=True)
        if self.protocol is not None:
            told = [b"config|protocol|%d.%d\n" % self.protocol] if self.protocol >= NEWEST else []
            lines = told + [line for line in lines if not line.startswith(b"config|protocol|")]
        return b"".join(lines)

    def stop(self) -> None:
        """End it. Switches greenlets."""
        if self.child is not None:
            self.child.stop()

    def _take_hooks(self, child: Child) -> None:
        registry = self._registry
        wires = {phase.wire: phase for phase in PHASES.values()}
        for wire in child.oracle.phases - {"data-line"}:
            phase = wires[wire]
            registry.filters[phase.name] = self._handler(f"filter.{phase.name}", self._ask, phase)
        if "data-line" in child.oracle.phases:
            registry.data = ("lines", self._handler("lines", self._edit, PHASES["commit"], 2))
        events = {event.wire: event.name for event in EVENTS.values()}
        told = {(subsystem, events[wire]) for subsystem, wire in child.oracle.reports}
        for subsystem in sorted({subsystem for subsystem, _ in told} | {"smtp-in"}):
            told.add((subsystem, "link_disconnect"))
            told |= {(subsystem, name) for name in _KEPT}
        for subsystem, name in sorted(told):
            count = 1 + len(EVENTS[name].fields)
            handler = self._handler(f"report.{name}", self._tell, None, count)
            registry.reports[subsystem, name] = handler

    def _handler(self, hook: str, fn: Any, phase: Phase | None, count: int = 0) -> Handler:
        decision = parse_policy(self.on_error, None, None)
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
        call = ctx._call
        line = self._translated(call.line)
        session = self.child.session(call.session.sid, line)
        return session.ask(line, call.body, call.hook.wire)

    def _edit(self, ctx: Context, lines: Iterator[bytes]) -> Iterator[bytes]:
        assert self.child is not None
        call = ctx._call
        line = self._translated(call.line)
        message = self.child.session(call.session.sid, line).begin_message(line)
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
        self.note_report(ctx._call.session.sid, ctx._call.line)

    def note_report(self, sid: bytes, line: bytes) -> None:
        """Tell it a report. Never switches greenlets."""
        assert self.child is not None
        words = line.split(b"|", 5)
        line = self._translated(line)
        self.child.session(sid, line).keep(line, words[4])
        self.child.report(line, words[3].decode(), words[4].decode())
        if words[4] == b"link-disconnect":
            self.child.forget(sid)

    def _translated(self, line: bytes) -> bytes:
        return line if self.protocol is None else at_version(line, self.protocol)


class _ProgramRegistry(Registry):
    """The hooks of a program."""

    def __init__(self, app: Program) -> None:
        super().__init__(app)
        self._program = app

    def is_empty(self) -> bool:
        """Return False: it tells its hooks only when it runs."""
        return False

    def configure(self, calls: Any) -> None:
        """Start the program. Switches greenlets."""
        self._program.start(calls)

    def on_end(self) -> None:
        """End the program. Switches greenlets."""
        self._program.stop()

    def on_replay(self, line: bytes) -> None:
        """Tell the program of a session that the one of another worker knew."""
        words = line.split(b"|", 6)
        if words[4] in _EVENTS:  # not a memo of the chain's
            self._program.note_report(words[5], line)


def find_program(command: str) -> str:
    """Return a command with the whole path of its program, where smtpd would look for it.

    Raises:
        UsageError: there is no such program, or it is not a command.
    """
    name = split_command(command)[0]
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
