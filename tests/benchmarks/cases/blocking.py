"""Callbacks that wait for a server: many at a time, in greenlets and in threads."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from .. import peers
from ..bench import GREENFILTER, Bench, Case, Row, failed, greenfilters, limited, start
from ..driver import FilterProcess, NotStarted, Run, WrongReplies
from ..report import shown
from ..wire import Sessions, build

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTS = frozenset({"link-connect", "connect", "link-disconnect"})
LIMIT_MS = 150
THREADS = 16
"""What filters/blocking.py asks for."""

ZONE = "bl.example.org"


@dataclass
class SlowServer:
    """A server process on the loopback that answers after 50 ms."""

    port: int

    def peak(self, questions: int) -> int:
        """Most questions that waited at a time since this was last asked.

        Raises:
            WrongReplies: there were fewer questions in all than there must have been.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(10)
            asking.sendto(b"peak", ("127.0.0.1", self.port))
            peak, total = map(int, asking.recv(32).split())
        if total < questions:
            raise WrongReplies(f"only {total} of {questions} clients waited for the server")
        return peak


@contextmanager
def slow_server(*kind: str) -> Iterator[SlowServer]:
    """Run the server; ``dns`` makes it a DNS server that knows no name."""
    command = [sys.executable, str(peers.HERE / "peers" / "slow_server.py"), *kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield SlowServer(int(process.stdout.readline()))
        finally:
            process.kill()


def _all_at_once(
    bench: Bench, process: FilterProcess, server: SlowServer, sessions: int, *, wait: bool = True
) -> tuple[list[Run], int]:
    """Runs in which ``sessions`` clients connect at the same moment, after one for warming up.

    Returns:
        The runs, and how many clients waited for the server at a time.

    Raises:
        WrongReplies: one was not answered, or did not ``wait`` for the server.
    """
    runs = []
    for turn in range(bench.runs + 1):
        bench.progress("blocking", turn / (bench.runs + 1))
        kind = Sessions(process.hooks & CONNECTS)
        first = turn * sessions  # new addresses each time: a cached answer would not wait
        traffic = build(kind, sessions, units=sessions, lanes=1, at_once=sessions, first=first)
        runs.append(process.exchange(traffic))
    return runs[1:], server.peak(sessions * len(runs) if wait else 0)


def _greenlets(bench: Bench) -> list[Row]:
    sessions = bench.size(1000, 100)
    case = f"blocking, {sessions} sessions wait 50 ms"
    target = f"at most {LIMIT_MS} ms"
    rows = []
    with slow_server() as server:
        for name, command in greenfilters("blocking.py", str(server.port)):
            try:
                with start(bench, name, command()) as process:
                    runs, at_once = _all_at_once(bench, process, server, sessions)
            except (NotStarted, WrongReplies) as error:
                rows.append(failed(case, name, str(error), target))
                continue
            times = [run.seconds * 1000 for run in runs]
            cpu = median(run.filter_cpu for run in runs) / sessions * 1e6
            note = f"{at_once} waited at a time"
            rows.append(limited(case, name, times, "ms for all", LIMIT_MS, target, cpu, note))
    return rows


def _threads(bench: Bench) -> list[Row]:
    sessions = bench.size(320, 64)
    case = f"blocking, {sessions} sessions, thread=True"
    target = f"{THREADS} wait at a time, the pool's threads"
    with slow_server() as server:
        command = peers.greenfilter("blocking.py", str(server.port), "thread")
        try:
            with start(bench, "threads", command) as process:
                runs, at_once = _all_at_once(bench, process, server, sessions)
        except (NotStarted, WrongReplies) as error:
            return [failed(case, GREENFILTER, str(error), target)]
    cpu = median(run.filter_cpu for run in runs) / sessions * 1e6
    times = tuple(run.seconds * 1000 for run in runs)
    return [
        Row(
            case,
            GREENFILTER,
            times,
            "ms for all",
            more_is_better=False,
            cpu=cpu,
            target=target,
            reached=at_once >= THREADS,
            note=f"{at_once} waited at a time; {sessions / THREADS * 50:g} ms is the least",
        )
    ]


def _blocklist(bench: Bench) -> list[Row]:
    sessions = bench.size(2000, 100)
    case = "the stock filter rbl, DNS answers after 50 ms"
    with slow_server("dns") as server:
        where = ("--resolver", f"127.0.0.1@{server.port}", "--zone", ZONE)
        rbl = peers.greenfilter("rbl", "--action", "disconnect", *where)
        try:
            with start(bench, "rbl", rbl) as process:
                runs, at_once = _all_at_once(bench, process, server, sessions)
            # The same without look-ups: what is left is greenfilter's own.
            with start(bench, "rbl without", [*rbl, "--allow", "203.0.0.0/8"]) as process:
                bare, _ = _all_at_once(bench, process, server, sessions, wait=False)
        except (NotStarted, WrongReplies) as error:
            return [failed(case, GREENFILTER, str(error))]
    cpu, own = (median(run.filter_cpu for run in found) / sessions * 1e6 for found in (runs, bare))
    note = (
        f"{shown(own / cpu * 100, up=True)} % of the processor time is greenfilter's, "
        f"look-ups take the rest; {at_once} waited at a time"
    )
    rates = tuple(sessions / run.seconds for run in runs)
    return [Row(case, GREENFILTER, rates, "sessions/s", cpu=cpu, note=note)]


CASES = (
    Case("blocking", "Clients that wait 50 ms at the same time", _greenlets),
    Case("threads", "The same in the thread pool", _threads),
    Case("blocklist", "The stock filter rbl against a slow DNS server", _blocklist),
)
