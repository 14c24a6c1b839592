"""A server of Debian's in a test: its process, which dies with the test, and its log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.wait import wait_until

if TYPE_CHECKING:
    from types import TracebackType

_START_SECONDS = 30.0


class Daemon:
    """A server on a free port of 127.0.0.1. Use it with ``with``; it may be stopped and started.

    Args:
        directory: its own; it must not be there.

    Attributes:
        port: the same after a restart.
        log: the file that it writes what it says to.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str | Path]:
        """Return the command line."""
        raise NotImplementedError

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *map(str, self.command())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        def listens() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"did not start: {self.log.read_text()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except OSError:
                return False
            return True

        wait_until(listens, _START_SECONDS, f"{self.command()[0]} to listen")

    def stop(self) -> None:
        """Kill it: nobody listens on its port then."""
        if self._process is not None:
            self.resume()
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Make it say nothing, to nobody, with all connections open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End the pause."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)
