"""Runs a load against a filter in a process of its own."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import GreenfilterError
from .figures import Figures, HandlerTime
from .load import ROOM, Load, Script, Session

_CONFIG = b"""\
config|smtpd-version|7.8.0-portable
config|protocol|0.7
config|smtp-session-timeout|300
config|subsystem|smtp-in
config|admd|mx.example.org
config|ready
"""
_READY = b"register|ready\n"
_CHUNK = 128 << 10
# Above this, sessions wait with the rest of their messages.
_HIGH_BYTES = 512 << 10
_SILENCE_SECONDS = 60.0
# A filter that says nothing for so long, and logs that a handler keeps the loop, hangs.
_HANG_SECONDS = 3.0
_KEPT = b"kept the loop"
_LOOK_SECONDS = 1.0
_END_SECONDS = 10.0
_SIGNAL_SECONDS = 0.5
_LOG_LINES = 5

Progress = Callable[[Figures], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a filter may take.

    Args:
        silence: seconds without an answer.
        total: seconds for all of it.
        signal: sent to it after a silence, before it is killed; None for none.
    """

    silence: float = _SILENCE_SECONDS
    total: float = math.inf
    signal: signal.Signals | None = None


class BenchError(GreenfilterError):
    """The filter did not start, fell silent, or wrote what nobody asked for."""


class HangError(BenchError):
    """A handler keeps the loop, and all sessions wait for it."""


def measure(
    command: Sequence[str],
    load: Load,
    progress: Progress = lambda figures: None,
    *,
    script: type[Script] = Script,
    patience: Patience = Patience(),
) -> Figures:
    """Load a filter.

    Args:
        command: starts it, as smtpd would.
        load: how much.
        progress: called again and again with the figures so far.
        script: makes the sessions.
        patience: how long it may take.

    Raises:
        BenchError: see there.
        OSError: the command cannot be run.
    """
    with tempfile.TemporaryFile() as log:
        run = _Run(command, load, log, progress, script, patience)
        try:
            run.go()
        except BenchError as error:
            run.end()
            raise type(error)("\n  ".join([str(error), *_tail(log)])) from error
        except BaseException:
            run.end()
            raise
        run.end()
        run.figures.log = _tail(log)
        return run.figures


def profile(target: str, args: Sequence[str], load: Load, progress: Progress) -> list[HandlerTime]:
    """Load a filter whose handlers are timed from within, and say where the time went.

    Timing costs time itself, so rates are measured without it. The run ends when a handler keeps
    the loop for seconds; the error then names the line that it is at.

    Args:
        target: the filter's file, or ``package.module:name``.
        args: its own options.
        load: how much.
        progress: called again and again with the figures so far.

    Raises:
        BenchError: see there.
    """
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "times.json"
        options = {"target": target, "args": list(args), "out": str(out)}
        worker = [sys.executable, "-m", "greenfilter._commands.bench.timed", json.dumps(options)]
        figures = measure(worker, load, progress)
        times = [HandlerTime(**entry) for entry in json.loads(out.read_text())]
        return [replace(entry, queued_seconds=_queued(entry, figures)) for entry in times]


def _queued(entry: HandlerTime, figures: Figures) -> float | None:
    """Return how long requests waited besides their handler; None if not answered one by one."""
    kind, _, name = entry.hook.partition(".")
    latencies = figures.latencies.get(name.replace("_", "-"))
    if kind != "filter" or name == "data_line" or latencies is None:
        return None
    return max(0.0, latencies.total - entry.seconds)


class _Run:
    def __init__(
        self,
        command: Sequence[str],
        load: Load,
        log: Any,
        progress: Progress,
        script: type[Script],
        patience: Patience,
    ) -> None:
        self.figures = Figures()
        self._script_type = script
        self._patience = patience
        self._load = load
        self._log = log
        self._progress = progress
        self._socket, theirs = socket.socketpair()
        self._begun = time.perf_counter()
        with theirs:
            fd = theirs.fileno()
            self._process = subprocess.Popen(command, stdin=fd, stdout=fd, stderr=log)
        self._out = bytearray()
        self._rest = b""
        self._waiting: dict[bytes, Session] = {}
        self._hungry: deque[tuple[bytes, Session]] = deque()
        self._started = 0
        self._running = 0
        self._events: set[str] = set()
        self._phases: set[str] = set()

    def go(self) -> None:
        """Start, and bring all sessions to their end."""
        self._handshake()
        self.figures.start_seconds = time.perf_counter() - self._begun
        hooks = (frozenset(self._events), frozenset(self._phases))
        self._script = self._script_type(self._load, hooks, self._out.extend, self.figures)
        cpu, own, self._begun = self._cpu(), time.process_time(), time.perf_counter()
        self._socket.setblocking(False)
        self._pump()
        self.figures.seconds = time.perf_counter() - self._begun
        self.figures.driver_cpu = time.process_time() - own
        after = self._cpu()
        # The time of a worker that has ended is lost with it.
        if cpu and cpu.keys() <= after.keys():
            self.figures.filter_cpu = sum(after.values()) - sum(cpu.values())

    def end(self) -> None:
        """Send EOF, smtpd's order to stop; a filter that does not obey is killed."""
        self._socket.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _handshake(self) -> None:
        self._socket.settimeout(_SILENCE_SECONDS)
        answer = b""
        try:
            self._socket.sendall(_CONFIG)
            while _READY not in answer:
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise BenchError("the filter ended before it was ready:")
                answer += data
        except OSError as error:
            raise BenchError(f"the filter did not start ({error}):") from error
        answer, _, self._rest = answer.partition(_READY)
        for line in answer.decode("ascii", "replace").splitlines():
            kind, subsystem, name = ([*line.split("|"), "", ""])[1:4]
            if subsystem == "smtp-in":
                (self._events if kind == "report" else self._phases).add(name)

    def _pump(self) -> None:
        poll = select.poll()
        rest, told = self._rest, 0.0
        heard = time.perf_counter()
        while self._fill() or self._out:
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._out else 0))
            looks = min(_LOOK_SECONDS, self._patience.silence)
            events = poll.poll(looks * 1000)
            if not events:
                self._bear(time.perf_counter() - heard)
                continue
            heard = time.perf_counter()
            if events[0][1] & select.POLLOUT:
                self._flush()
            if events[0][1] & ~select.POLLOUT:
                *lines, rest = (rest + self._read()).split(b"\n")
                for line in lines:
                    self._answered(line)
            now = time.perf_counter()
            if now - self._begun > self._patience.total:
                raise BenchError(f"not at its end after {self._patience.total:g} s:")
            if now - told > 0.1:
                told = now
                self._progress(self.figures)
        self._progress(self.figures)

    def _bear(self, silence: float) -> None:
        """Keep waiting for the filter, or give up."""
        if self._patience.signal is None and silence >= _HANG_SECONDS and self._log_has(_KEPT):
            raise HangError(f"the filter hangs: no answer for {silence:.0f} s to {self._owed()}:")
        if silence >= self._patience.silence:
            self._ask_where_it_stands()
            raise BenchError(f"no answer for {self._patience.silence:g} s to {self._owed()}:")

    def _log_has(self, text: bytes) -> bool:
        # The filter writes where the shared file position is.
        return text in os.pread(self._log.fileno(), 1 << 20, 0)

    def _ask_where_it_stands(self) -> None:
        if self._patience.signal is not None:
            self._process.send_signal(self._patience.signal)
            time.sleep(_SIGNAL_SECONDS)
            self._process.kill()  # it would not see the end of its input

    def _fill(self) -> bool:
        """Begin sessions, and go on with those that wait for room. Whether there is work."""
        while self._hungry and len(self._out) < _HIGH_BYTES:
            self._resume(*self._hungry.popleft(), None)
        while self._running < self._load.concurrency and self._may_begin():
            self._started += 1
            self._running += 1
            self._resume(*self._script.session(self._started), None)
        return self._running > 0

    def _may_begin(self) -> bool:
        load = self._load
        if len(self._out) > _HIGH_BYTES:
            return False
        late = load.seconds is not None and time.perf_counter() - self._begun > load.seconds
        return not late and (load.sessions is None or self._started < load.sessions)

    def _resume(self, sid: bytes, session: Session, answer: bytes | None) -> None:
        try:
            waits_for = next(session) if answer is None else session.send(answer)
        except StopIteration:
            self._running -= 1
            return
        if waits_for == ROOM:
            self._hungry.append((sid, session))
        else:
            self._waiting[sid] = session

    def _answered(self, line: bytes) -> None:
        kind, sid, _, rest = [*line.split(b"|", 3), b"", b"", b""][:4]
        if kind == b"filter-dataline" and rest != b".":
            return
        session = self._waiting.pop(sid, None)
        if session is None or kind not in (b"filter-dataline", b"filter-result"):
            raise BenchError(f"the filter wrote what nobody asked for: {line[:200]!r}")
        self._resume(sid, session, rest)

    def _flush(self) -> None:
        with suppress(BlockingIOError):
            sent = self._socket.send(self._out[:_CHUNK])
            del self._out[:sent]

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            raise BenchError("the filter ended:")
        return data

    def _owed(self) -> str:
        return f"{len(self._waiting)} requests" if self._waiting else "what was written"

    def _cpu(self) -> dict[int, float]:
        """Return the processor seconds of the filter's processes; empty where not known."""
        try:
            return {pid: _cpu_seconds(pid) for pid in _tree(self._process.pid)}
        except (OSError, ValueError):
            return {}


def _cpu_seconds(pid: int) -> float:
    # Linux: the clock of a process is ~pid << 3, and 2 selects user + system.
    return time.clock_gettime(~pid << 3 | 2) if sys.platform == "linux" else _not_told()


def _not_told() -> float:
    raise ValueError("no clock of another process")


def _tree(pid: int) -> list[int]:
    """Return a process and its descendants, from ps(1)."""
    table = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    rows = [tuple(map(int, line.split())) for line in table.splitlines()]
    found = [pid]
    for known in found:
        found += [child for child, parent in rows if parent == known]
    return found


def _tail(log: Any) -> list[str]:
    log.seek(0)
    return [
        line.rstrip(b"\n").decode("utf-8", "backslashreplace")
        for line in deque(log, maxlen=_LOG_LINES)
    ]
