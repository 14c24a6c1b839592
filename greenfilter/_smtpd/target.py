"""Where the filter runs: a process of its own, or whatever can be started on a socket."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

import gevent
import gevent.socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from .oracle import OracleError

_POLL_SECONDS = 0.002


class Target(Protocol):
    """A filter that can be started on a socket.

    Attributes:
        log: what the filter wrote to its standard error, line by line.
        fault: what the test cannot go on after, beside what the filter wrote.
    """

    log: list[str]

    @property
    def fault(self) -> OracleError | None: ...

    def start(self, sock: socket.socket) -> None:
        """Start the filter. It owns ``sock`` from here on, also when it cannot start.

        Raises:
            OSError: a command cannot be run.
        """

    def wait(self, timeout: float) -> str | None:
        """Wait until the filter has ended.

        Returns:
            "" for a good end, else what was wrong with it. None after ``timeout`` seconds.
        """

    def kill(self) -> None:
        """End the filter, whatever it does."""


class Process:
    """A command with smtpd's file descriptors: one socket as 0 and 1, another as 2.

    Args:
        command: program and arguments. It runs in a session of its own: Ctrl-C does not reach it.
        on_log: called with each line that the command logs.
        environment: what is added to its environment.
    """

    def __init__(
        self,
        command: Sequence[str],
        on_log: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log: list[str] = []
        self.fault: OracleError | None = None
        self._on_log = on_log
        self._command = list(command)
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_reader: gevent.Greenlet[..., None] | None = None

    def start(self, sock: socket.socket) -> None:
        """Start the command."""
        ours, theirs = gevent.socket.socketpair()
        with sock, theirs:
            for end in (sock, theirs):  # as smtpd leaves them: programs read and write simply
                os.set_blocking(end.fileno(), True)
            fd = sock.fileno()
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=fd,
                    stdout=fd,
                    stderr=theirs.fileno(),
                    start_new_session=True,
                    env={**os.environ, **self._environment},
                )
            except OSError:
                ours.close()
                raise
        self._log_reader = gevent.spawn(self._read_log, ours)

    def wait(self, timeout: float) -> str | None:
        """Wait for the process, then for the rest of its log. Switches greenlets."""
        assert self._process is not None, "start() comes first"
        assert self._log_reader is not None
        deadline = time.monotonic() + timeout
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                return None
            gevent.sleep(_POLL_SECONDS)
        # A child of the filter may keep fd 2 open.
        self._log_reader.join(1.0)
        status = self._process.returncode
        if status < 0:
            return f"it was ended by signal {-status}"
        return f"its exit status was {status}" if status else ""

    def kill(self) -> None:
        """Kill the process and wait for it."""
        assert self._process is not None, "start() comes first"
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        assert self._log_reader is not None
        self._log_reader.kill()

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        assert self._process is not None, "start() comes first"
        self._process.send_signal(number)

    def kill_children(self) -> list[int]:
        """Kill what the process has started, and return the process ids."""
        assert self._process is not None, "start() comes first"
        found = children(self._process.pid)
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return found

    def _read_log(self, sock: gevent.socket.socket) -> None:
        with sock, sock.makefile("rb") as lines:
            for line in lines:
                text = line.rstrip(b"\n").decode("utf-8", "backslashreplace")
                self.log.append(text)
                if self._on_log:
                    self._on_log(text)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run, from ps(1)."""
    table = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in table.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == pid and not row[2].startswith("Z")]
