"""FakeSmtpd over ``greenfilter run`` with its supervisor, in processes of their own."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from greenfilter.testing import FakeSmtpd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from greenfilter.testing import Session

FILTERS = Path(__file__).parent / "filters"


class Supervised(FakeSmtpd):
    """FakeSmtpd with a view of the supervisor's processes."""

    @property
    def pid(self) -> int:
        """The supervisor."""
        return self._link.target._process.pid  # type: ignore[attr-defined]

    def workers(self) -> set[int]:
        """The worker processes that run now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return {int(child) for child in children if runs(int(child))}

    def signal_workers(self, number: int = signal.SIGKILL) -> set[int]:
        """Send all of them a signal, and return them."""
        workers = self.workers()
        for pid in workers:
            os.kill(pid, number)
        return workers

    def reload(self) -> None:
        """Have the code loaded again."""
        os.kill(self.pid, signal.SIGHUP)

    def wait_for_log(self, pattern: str, start: int = 0) -> str:
        """Wait for a line of the filter's log, and return it. Switches greenlets."""

        def find() -> str:
            return next((line for line in self.log[start:] if re.search(pattern, line)), "")

        until(lambda: bool(find()), f"{pattern!r} in the log", lambda: "\n".join(self.log))
        return find()

    def client(self, identity: str = "client.example.net") -> Session:
        """Connect a client that has said EHLO. Switches greenlets."""
        session = self.connect()
        assert session.ehlo(identity).ok, session.reply
        return session

    def message(self, session: Session, content: bytes, sender: str = "fine@example.net") -> Any:
        """Send one message in a session, and return the reply. Switches greenlets."""
        assert session.mail_from(sender).ok, session.reply
        assert session.rcpt_to("bob@example.org").ok, session.reply
        return session.data(content)


def until(condition: Callable[[], bool], what: str, more: Callable[[], str] = str) -> None:
    """Wait for a condition, while the other greenlets run."""
    deadline = time.monotonic() + 15.0
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}\n{more()}"
        gevent.sleep(0.002)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def run() -> Iterator[Callable[..., Supervised]]:
    """Start a filter file under FakeSmtpd; it is stopped after the test."""
    with ExitStack() as stack:

        def start(
            target: str | Path, *args: str, options: tuple[str, ...] = (), **others: Any
        ) -> Supervised:
            path = FILTERS / target if isinstance(target, str) else target
            command = [sys.executable, "-m", "greenfilter", "run", *options, str(path), *args]
            return stack.enter_context(Supervised(command, **others))

        yield start


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a filter file that begins with the usual imports, and return its path."""
    path = tmp_path / "written.py"

    def write_filter(code: str) -> Path:
        # In one step: a worker may be about to read it.
        new = tmp_path / "new.py"
        new.write_text("from greenfilter import *\nimport os, signal, sys, time\n" + code)
        new.rename(path)
        return path

    return write_filter
