"""``greenfilter serve`` as a process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.wait import wait_until

TIMEOUT = 20.0


class ServeCommand:
    """A running server. Use it with ``with``; it is ended as by Ctrl-C.

    Args:
        args: options and FILTER. ``--listen`` with a free port is added, and ``--json``.
        program: how Python is told what to run.
        cwd: working directory.
    """

    def __init__(
        self, *args: str, program: Sequence[str] = ("-m", "greenfilter"), cwd: Path | None = None
    ) -> None:
        options = ["--listen", "127.0.0.1:0", "--json"]
        self.process = subprocess.Popen(
            [sys.executable, *program, "serve", *options, *args],
            stdout=subprocess.PIPE,
            text=True,
            cwd=cwd,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> ServeCommand:
        try:
            self.wait_for("listening")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        return int(self.wait_for("listening")["address"].rpartition(":")[2])

    def events(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in list(self.lines)]
        return [event for event in events if {"event": kind, **fields}.items() <= event.items()]

    def wait_for(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Wait for the first event of a kind that has these fields."""

        def there() -> bool:
            assert self.process.poll() is None or self.events(kind, **fields), self.lines
            return bool(self.events(kind, **fields))

        wait_until(there, TIMEOUT, f"{kind} {fields}")
        return self.events(kind, **fields)[0]

    def wait_for_log(self, text: str) -> str:
        """Wait until the filter has logged a line with this in it, and give the line."""

        def found() -> list[str]:
            return [event["line"] for event in self.events("log") if text in event["line"]]

        wait_until(lambda: bool(found()), TIMEOUT, text)
        return found()[0]

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal, wait for the end and give the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.wait()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
