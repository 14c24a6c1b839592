"""The filter's process: started, watched, replaced."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gevent
import greenlet
from gevent.pool import Group

from ..._control import TELL_EDITS
from ..._smtpd.link import FilterLink
from ..._smtpd.oracle import OracleError, SmtpdWouldDie, SmtpdWouldHang
from ..._smtpd.target import Process
from ..._smtpd.wire import Version
from ...errors import UsageError
from .members import Members
from .protocol_watch import Watch
from .transcript import Transcript

# Seconds: how long smtpd waits (it waits for ever), how long a start and an end may take, how
# often files are looked at.
_ANSWER_SECONDS = 300.0
_START_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
_LOOK_SECONDS = 0.3
# An answer that takes longer is told of while it is waited for.
_LONG_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of a filter besides what it registers.

    Args:
        name: as its author calls it.
        handlers: names of the functions that decide, by phase.
        files: a change of one of them restarts the filter.
        is_chain: it consists of several filters.
    """

    name: str
    handlers: dict[str, list[str]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    is_chain: bool = False


class NotLoaded(UsageError):
    """The filter cannot be loaded.

    Args:
        text: why.
        files: a change of one of them may help.
    """

    def __init__(self, text: str, files: tuple[str, ...]) -> None:
        super().__init__(text, exit_code=1)
        self.files = files


@dataclass(frozen=True, slots=True)
class Source:
    """What to run.

    Args:
        target: FILTER of ``greenfilter run``, or a command as in ``proc-exec``.
        args: the filter's own options.
        proc_exec: whether it is a command.
    """

    target: str
    args: tuple[str, ...] = ()
    proc_exec: bool = False

    @property
    def command(self) -> list[str]:
        """What smtpd.conf(5) would name."""
        if self.proc_exec:
            return [*shlex.split(self.target), *self.args]
        return [sys.executable, "-m", "greenfilter", "run", self.target, *self.args]

    def describe(self) -> Described:
        """Look into the filter, in a process of its own. Switches greenlets.

        Raises:
            UsageError: it cannot be loaded.
        """
        if self.proc_exec:
            files = tuple(word for word in self.command if os.path.isfile(word))
            return Described(Path(self.command[0]).name, files=files)
        command = [
            sys.executable,
            "-m",
            "greenfilter._commands.serve.describe",
            self.target,
            *self.args,
        ]
        late = f"{self.target}: not loaded after {_START_SECONDS:g} s"
        status, output, errors = _run(command, UsageError(late, exit_code=1))
        try:
            found = json.loads(output)
        except ValueError:
            text = errors.strip() or f"{self.target}: ended with status {status}"
            raise UsageError(text.splitlines()[-1], exit_code=1) from None
        if "error" in found:
            raise NotLoaded(found["error"], tuple(found["files"]))
        files = tuple(found["files"])
        return Described(found["name"], found["handlers"], files, found["is_chain"])


def _run(command: list[str], late: UsageError) -> tuple[int, str, str]:
    """Run a command; return its exit status, output and errors. It has always ended then.

    Raises:
        UsageError: ``late``, when it takes too long.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        start_new_session=True,  # Ctrl-C is for the server
    )
    try:
        with gevent.Timeout(_START_SECONDS, late):
            output, errors = gevent.get_hub().threadpool.apply(process.communicate)
    finally:
        process.kill()
        process.wait()
    return process.returncode, output, errors


class RunningFilter:
    """One process of the filter, and who uses it.

    Attributes:
        described: what is known of it.
        link: to it.
        watch: what passes on the link.
        users: greenlets that serve a client or relay a message on it.
    """

    def __init__(
        self,
        source: Source,
        described: Described,
        version: Version,
        transcript: Transcript,
        on_error: Callable[[RunningFilter, OracleError], None],
    ) -> None:
        self.described = described
        self.watch = Watch(transcript.protocol if transcript.wants_protocol else None)
        self.users: set[greenlet.greenlet] = set()
        self._members = Members(described.name) if described.is_chain else None
        self._transcript = transcript
        process = Process(source.command, self._log, {TELL_EDITS: "1"})
        self.link = FilterLink(
            process, version, _START_SECONDS, self.watch, on_error=self._found_wrong
        )
        self._on_error = on_error

    def who(self, session_id: str, phase: str, *, decided: bool) -> list[str]:
        """Name what has decided, or edited, at a phase: functions, or members of a chain.

        Args:
            session_id: of the client.
            phase: on the wire.
            decided: whether anything was. May switch greenlets then.
        """
        if self._members is None:
            return self.described.handlers.get(phase, [])
        return self._members.who(session_id, phase, wait=decided)

    def forget(self, session_id: str) -> None:
        """A session is over. Never switches."""
        self.watch.forget(session_id)
        if self._members is not None:
            self._members.forget(session_id)

    def open(self, config: Sequence[bytes]) -> None:
        """Start the process. Switches greenlets.

        Raises:
            OracleError: smtpd would not start with it.
            OSError: there is no such command.
        """
        self.link.open(config)
        self.link.timeout = _ANSWER_SECONDS

    def close(self) -> None:
        """End the process. Switches greenlets."""
        self.link.timeout = _CLOSE_SECONDS
        self.link.close()

    def _log(self, line: str) -> None:
        self._transcript.log(line)
        if self._members is not None:
            self._members.note(line)

    def _found_wrong(self, error: OracleError) -> None:
        self._on_error(self, error)


class FilterKeeper:
    """Sees to it that there is a filter for each new client.

    Args:
        source: what to run.
        version: protocol version.
        config: lines that smtpd starts a filter with.
        transcript: told of all that happens to the filter.
    """

    def __init__(
        self, source: Source, version: Version, config: Sequence[bytes], transcript: Transcript
    ) -> None:
        self.current: RunningFilter | None = None
        self._source = source
        self._version = version
        self._config = config
        self._transcript = transcript
        self._opened: set[RunningFilter] = set()
        self._files: tuple[str, ...] = ()
        self._seen: list[object] = []
        # What starts filters, and what ends them: the latter is never interrupted.
        self._starting = Group()
        self._closing = Group()

    def start(self) -> None:
        """Start the filter. Switches greenlets.

        Raises:
            UsageError: it cannot be loaded, or does not register.
        """
        try:
            described = self._source.describe()
        except NotLoaded as error:
            self._remember(tuple({*self._files, *error.files}))
            raise
        self._remember(described.files)
        running = RunningFilter(
            self._source, described, self._version, self._transcript, self._on_error
        )
        self._opened.add(running)
        try:
            running.open(self._config)
        except OSError as error:
            self._opened.discard(running)
            raise UsageError(f"{self._source.command[0]}: {error.strerror}", 1) from error
        except OracleError as error:
            self._close(running)
            reason = str(error).partition("\n")[0]  # what follows was logged
            raise UsageError(f"real smtpd would not start: {reason}", 1) from error
        except gevent.GreenletExit:
            self._close(running)
            raise
        before, self.current = self.current, running
        self._transcript.filter_started(described.name, again=before is not None)
        if before:
            self._close_unused(before)

    def watch(self) -> None:
        """Restart the filter whenever a file of it changes, from now on. Never switches."""
        self._starting.spawn(self._watch_files)

    def acquire(self) -> RunningFilter | None:
        """Return the filter for the calling greenlet to use; None if it does not run."""
        if self.current:
            self.current.users.add(gevent.getcurrent())
        return self.current

    def release(self, running: RunningFilter) -> None:
        """Note that the calling greenlet is done with the filter. Never switches."""
        running.users.discard(gevent.getcurrent())
        self._close_unused(running)

    def stop(self) -> None:
        """End all processes. Switches greenlets."""
        self._starting.kill()
        self.current = None
        for running in list(self._opened):
            gevent.killall(list(running.users))
            self._close(running)
        self._closing.join()

    def _close_unused(self, running: RunningFilter) -> None:
        if running is not self.current and not running.users:
            self._close(running)

    def _close(self, running: RunningFilter) -> None:
        if running in self._opened:
            self._opened.discard(running)
            self._closing.spawn(running.close)

    def _on_error(self, running: RunningFilter, error: OracleError) -> None:
        if not running.link.oracle.ready:
            return  # start() says it
        self._transcript.wrong(error)
        whole = isinstance(error, SmtpdWouldHang) and error.session_id is None
        if whole or isinstance(error, SmtpdWouldDie):
            # Its clients lose their connections, as they would; new ones get a new process.
            was_current = running is self.current
            self.current = None if was_current else self.current
            self._starting.spawn(self._bury, running, was_current)

    def _bury(self, dead: RunningFilter, was_current: bool) -> None:
        gevent.killall(list(dead.users))
        self._close(dead)
        if was_current:
            self._start_or_tell()

    def _start_or_tell(self) -> None:
        try:
            self.start()
        except UsageError as error:
            self._transcript.not_started(str(error), goes_on=self.current is not None)

    def _watch_files(self) -> None:
        loading: gevent.Greenlet[..., None] | None = None
        now: list[object] = []
        while True:
            gevent.sleep(_LOOK_SECONDS)
            self._tell_waits()
            before, now = now, _states(self._files)
            # A file that is just being replaced has no state; one that was deleted keeps none.
            if now != self._seen and (None not in now or now == before):
                self._seen = now
                if loading:
                    loading.kill()  # it may never end, and what it loads is out of date
                loading = self._starting.spawn(self._start_or_tell)

    def _tell_waits(self) -> None:
        for running in self._opened:
            for session_id, phase in running.watch.unanswered(_LONG_SECONDS):
                names = running.described.handlers.get(phase, [])
                self._transcript.waits(session_id, phase, names, _LONG_SECONDS)

    def _remember(self, files: tuple[str, ...]) -> None:
        self._files = files
        self._seen = _states(files)


def _states(files: Sequence[str]) -> list[object]:
    states: list[object] = []
    for path in files:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            states.append(None)
        else:
            states.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return states
