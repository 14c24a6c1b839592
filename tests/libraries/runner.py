"""Run a row's filter under ``greenfilter run``, and play many sessions to it at once."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import gevent

from greenfilter.testing import FakeSmtpd, OracleError

from . import SECONDS
from .row import Verdict
from .servers import ServerMissing

if TYPE_CHECKING:
    from pathlib import Path

    from .row import Row
    from .servers import Servers

_TIMEOUT: Final = 30.0  # longer than the filters' deadline
_BLOCKED: Final = 0.8 * SECONDS
_PROBE_PAUSE: Final = 0.02


@dataclass
class Outcome:
    """What a row's filter did.

    Attributes:
        verdict: what that amounts to.
        sessions: how many asked at once.
        answered: how many of them were answered as the handler says.
        first, last: seconds until the first and the last answer.
        stall: seconds that the loop stood still at the longest.
        reason: of failures, the first that the filter logged, or what smtpd saw.
        is_named: whether ``greenfilter check`` warned of the filter.
        warning: what it said.
    """

    verdict: Verdict = Verdict.FAILS
    sessions: int = 0
    answered: int = 0
    first: float = 0.0
    last: float = 0.0
    stall: float = 0.0
    reason: str = ""
    is_named: bool = False
    warning: str = ""
    log: list[str] = field(default_factory=list)

    def problem(self, row: Row, *, thread: bool) -> str:
        """Say what is not as the row expects it; "" if all is."""
        expected = row.thread if thread else row.plain
        figures = f"{self.answered} of {self.sessions}, {self.last:.2f} s, stall {self.stall:.2f} s"
        if expected is Verdict.COMPUTES:
            as_expected = self.verdict is not Verdict.FAILS
        elif expected is Verdict.FAILS:
            as_expected = self.is_named
        else:
            as_expected = self.verdict is expected
        if not as_expected:
            extra = f": {self.reason}" if self.reason else ""
            return f"expected: {expected}; found: {self.verdict} ({figures}){extra}"
        if not thread and row.is_named is not None and row.is_named != self.is_named:
            return f"check warns: {self.warning}" if self.is_named else "check is silent"
        return ""


def missing(row: Row, servers: Servers) -> str:
    """Say what is not installed that a row needs; "" if all is."""
    absent = [name for name in sorted(row.packages()) if find_spec(name) is None]
    if absent:
        return f"Python has no {', '.join(absent)} (pip install '.[libraries]')"
    try:
        row.source(servers, thread=False)
    except ServerMissing as error:
        return str(error)
    return ""


def attempt(row: Row, servers: Servers, *, thread: bool, sessions: int) -> Outcome:
    """Play sessions to a row's filter.

    Args:
        row: the filter.
        servers: started as it needs them.
        thread: with ``thread=True``.
        sessions: how many ask at once.
    """
    # Named so that no filter hides the library that it imports.
    path = servers.directory / f"row_{row.name}{'_thread' if thread else ''}.py"
    path.write_text(row.source(servers, thread=thread))
    outcome = Outcome(sessions=sessions)
    _check(path, outcome)
    # A row that is expected to fail, and of which check says so, may hang smtpd's start.
    smtpd = FakeSmtpd(
        [sys.executable, "-m", "greenfilter", "run", str(path)],
        timeout=8.0 if row.plain is row.thread is Verdict.FAILS else _TIMEOUT,
    )
    try:
        with smtpd:
            _play(smtpd, outcome)
    except (OracleError, OSError) as error:
        outcome.reason = f"{type(error).__name__}: {error}".splitlines()[0]
    outcome.log = list(smtpd.log)
    if outcome.answered < sessions:
        outcome.reason = _failure(outcome.log) or outcome.reason
    elif outcome.stall >= _BLOCKED:
        outcome.verdict = Verdict.MOVED
    else:
        outcome.verdict = Verdict.ALONE
    return outcome


def _play(smtpd: FakeSmtpd, outcome: Outcome) -> None:
    """Have all sessions say MAIL at once, and one say NOOP all the time."""
    first = smtpd.connect()  # opens connections, loads modules, fills pools
    first.ehlo("client.example.net")
    first.mail_from("a@example.net")
    clients = [smtpd.connect(src=f"192.0.2.{n + 1}:4711") for n in range(outcome.sessions)]
    probe = smtpd.connect()
    for client in [*clients, probe]:
        client.ehlo("client.example.net")
    times: list[float] = []
    begin = time.monotonic()

    def ask(client) -> None:  # type: ignore[no-untyped-def]
        reply = client.mail_from("a@example.net")
        times.append(time.monotonic() - begin)
        if reply.text == "done":
            outcome.answered += 1

    def keep_asking() -> None:
        while len(times) < outcome.sessions:
            asked = time.monotonic()
            probe.noop()
            outcome.stall = max(outcome.stall, time.monotonic() - asked)
            gevent.sleep(_PROBE_PAUSE)

    tasks = [smtpd.start(keep_asking), *(smtpd.start(ask, client) for client in clients)]
    try:
        for task in tasks:
            task.get()
    finally:
        gevent.killall(tasks)
    outcome.first, outcome.last = min(times), max(times)
    for client in [first, probe, *clients]:
        if not client.closed:
            client.quit()


def _check(path: Path, outcome: Outcome) -> None:
    """Ask ``greenfilter check`` about the filter."""
    command = [sys.executable, "-m", "greenfilter", "check", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        outcome.warning = "check did not end"
        return
    lines = [line for line in done.stderr.splitlines() if f"{path.name}:" in line]
    outcome.is_named = bool(lines)
    outcome.warning = lines[0].strip() if lines else ""


def _failure(log: list[str]) -> str:
    """Return the first line of a log that tells of an error, without what differs each time."""
    for line in log:
        if any(word in line for word in ("Error", "error:", "no answer within", "hang", "cannot")):
            return line[:240]
    return log[-1][:240] if log else ""
