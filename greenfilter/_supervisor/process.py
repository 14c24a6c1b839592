"""One worker process, from its start to its end."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from .._control import Hello
from .._process import mark, stderr
from .._process.python import make_command
from .code import Code
from .lifecycle import Event, State, follow
from .link import Link

if TYPE_CHECKING:
    from ..protocol import Call, Phase
    from ..protocol import Event as Report
    from .sessions import SupervisedSession

# Sessions that have ended and whose handlers may still run.
_MAX_DEPARTED = 256

# Between two looks at what a worker that ends still writes to its log.
_LOOK_SECONDS = 0.02


class WorkerProcess:
    """A process that runs the filter, and the link to it.

    Args:
        selector: of the loop.
        options: for the worker: target, args, log_level, log_format.
        code: what it runs.
        now: the time (monotonic seconds).
        receive: is given each piece of the worker's output.
        ended: is called when its socket has closed.
        sink: gets what it writes to its stdout and stderr.

    Attributes:
        hello: what its filter registers, once it has loaded.
        sessions: those that are in its hands.
        departed: the last that the client has ended, each with the request that was owed.
        born, loaded, beat: when it was started, when its filter had loaded, and when it last said
            that it is alive.
        waits: phase -> seconds that smtpd waits for its answer to a request.
        mute: time at which it let a deadline pass, unless it has answered anything since.
        state: where it is in its life; only :meth:`move_on` changes it.
        leave_by: when a worker that is leaving has to be done.
        kill_at: when one that is ending is ended by force.

    Raises:
        OSError: the system has no process, descriptor or memory for it.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        options: dict[str, object],
        code: Code,
        now: float,
        receive: Callable[[WorkerProcess, bytes], None],
        ended: Callable[[WorkerProcess], None],
        sink: stderr.Sink,
    ) -> None:
        with ExitStack() as kept, ExitStack() as given:
            ours, theirs = socket.socketpair()
            kept.enter_context(ours)
            given.enter_context(theirs)
            log, log_end = os.pipe()
            kept.callback(os.close, log)
            given.callback(os.close, log_end)
            mark_fd = mark.make()
            given.callback(os.close, mark_fd)
            self._page = mark.take(mark_fd)
            fds = [theirs.fileno(), mark_fd]
            told = {**options, "fd": fds[0], "mark_fd": fds[1]}
            told |= {"code_fd": code.fd, "accepted": code.sealed}
            if code.fd is not None:
                fds.append(code.fd)
            self._process = subprocess.Popen(
                make_command("greenfilter._supervisor.worker", json.dumps(told)),
                stdout=log_end,  # stdin is the supervisor's, where nothing ever comes
                stderr=log_end,
                pass_fds=fds,
                process_group=0,  # so that what it starts ends with it
            )
            kept.pop_all()
        fd = ours.detach()
        self.log = stderr.Pipe(selector, log, sink)
        self.link = Link(selector, (fd, fd), lambda data: receive(self, data), lambda: ended(self))
        self.link.held = True  # until its filter has loaded
        self.tail = b""
        self.hello: Hello | None = None
        self.sessions: dict[bytes, SupervisedSession] = {}
        self.departed: deque[tuple[SupervisedSession, Call | None]] = deque(maxlen=_MAX_DEPARTED)
        self.born = self.loaded = self.beat = now
        self.waits: dict[Phase | Report, float] = {}
        self.mute: float | None = None
        self.state = State.LOADING
        self.leave_by = 0.0
        self.kill_at = 0.0
        self._cleaned_up = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def move_on(self, event: Event) -> None:
        """Go to the state that an event leads to."""
        self.state = follow(self.state, event)

    def serve(self, hello: Hello, now: float) -> None:
        """Begin to give it what it is to do: its filter has been loaded."""
        self.move_on(Event.LOADED)
        self.hello = hello
        self.link.held = False
        self.loaded = self.beat = now
        if self.mute is not None:
            self.mute = now  # until now it could not answer

    def bytes_read(self) -> int:
        """Return how much of what it was given it has read, as far as it has said so."""
        return mark.bytes_read(self._page)

    def exit_code(self) -> int | None:
        """Return its exit status, or minus the signal that ended it; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._clean_up()
        return code

    def end(self) -> str:
        """Return how it ended, for the log."""
        code = self.exit_code()
        if code is None:
            return "it closed its socket"
        if code >= 0:
            return f"exit status {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def marked(self) -> Iterator[tuple[bytes, str | None]]:
        """Return ids of the sessions whose code runs, each with the report it handles, if any."""
        return mark.marked(self._page)

    def kill(self) -> None:
        """End it at once."""
        if self.exit_code() is None:
            self._process.kill()
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Wait some time for its end; return whether it came."""
        end = time.monotonic() + seconds
        while True:
            self.log.read()  # it may wait for room there
            left = end - time.monotonic()
            try:
                self._process.wait(min(_LOOK_SECONDS, max(0.0, left)))
            except subprocess.TimeoutExpired:
                if left <= 0:
                    return False
            else:
                self._clean_up()
                return True

    def _clean_up(self) -> None:
        """Remove what it has left behind; once, for later its id may be that of another process."""
        if not self._cleaned_up:
            self._cleaned_up = True
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            self.log.end_line()
