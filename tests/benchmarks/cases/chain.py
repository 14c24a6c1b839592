"""What a chain of three filters costs: next to one filter, and to smtpd's own chain of three.

The second is measured on the real smtpd with everything that it does for a message: clients send
messages side by side, and what counts is the processor time of smtpd and its filters for one.
"""

from __future__ import annotations

import shlex
import threading
import time
from functools import partial

from tests.support.client import Client
from tests.support.sink import Sink
from tests.support.smtpd import Smtpd, missing

from .. import peers, procinfo
from ..bench import C_LIBRARY, GREENFILTER, SUPERVISED, Bench, Case, Contestant, Row, failed, race
from ..peers import MissingPeer
from .throughput import line_traffic, session_traffic

OF_THREE = "chain of three"
C_CHAIN = "smtpd's chain of three C filters"
_CLIENTS = 4
_LINES = 500


def _next_to_one(bench: Bench) -> list[Row]:
    """Through a socketpair: three members that do nothing, next to one."""
    rows: list[Row] = []
    for what, program, traffic in (
        ("lines", "echo", line_traffic(bench.size(400, 40))),
        ("sessions", "sessions", session_traffic(bench.size(20_000, 2000))),
    ):
        contestants = [
            Contestant(GREENFILTER, partial(peers.greenfilter, f"{what}.py"), traffic),
            Contestant(OF_THREE, partial(peers.greenfilter, f"chain-{what}.toml"), traffic),
            Contestant(
                f"{OF_THREE}, supervised",
                partial(peers.supervised, f"chain-{what}.toml"),
                traffic,
            ),
            Contestant(C_LIBRARY, partial(peers.compiled, program, bench.folder), traffic),
        ]
        rows += race(bench, f"chain: {what}", f"{what}/s", contestants, base=GREENFILTER)
    return rows


def _under_smtpd(bench: Bench) -> list[Row]:
    """On the real server: one chain file next to three filters of smtpd's."""
    case = "chain under smtpd"
    if reason := missing():
        return [failed(case, C_CHAIN, reason)]
    rows: list[Row] = []
    for kind, program, lines in (("messages", "echo", _LINES), ("sessions", "sessions", 1)):
        try:
            (path,) = peers.compiled(program, bench.folder)
        except MissingPeer as error:
            return [failed(case, C_CHAIN, str(error))]
        what = "lines" if kind == "messages" else "sessions"
        chain = shlex.join(peers.supervised(f"chain-{what}.toml"))
        filters = {
            C_CHAIN: {name: path for name in ("one", "two", "three")},
            OF_THREE: {"chain": chain},
            SUPERVISED: {"one": shlex.join(peers.supervised(f"{what}.py"))},
            "no filter": {},
        }
        times: dict[str, tuple[list[float], list[float]]] = {}
        for name, commands in filters.items():
            bench.progress(f"{case}: {kind}, {name}", len(times) / len(filters))
            times[name] = _measure(commands, bench.size(400, 40), bench.runs, lines)
        base = sorted(times[C_CHAIN][0])[bench.runs // 2]
        for name, (cpus, rates) in times.items():
            middle = sorted(cpus)[len(cpus) // 2]
            rows.append(
                Row(
                    f"{case}: {kind}",
                    name,
                    tuple(rates),
                    "messages/s",
                    cpu=middle,
                    ratio=base / middle,
                    base=C_CHAIN,
                    target=f"less processor time than {C_CHAIN}" if name == OF_THREE else "",
                    reached=middle < base if name == OF_THREE else None,
                    note="ratio of processor time, smtpd's own included",
                )
            )
    return rows


def _measure(
    filters: dict[str, str], messages: int, runs: int, lines: int
) -> tuple[list[float], list[float]]:
    """Return the processor time of a message in microseconds, and messages per second, by run."""
    body = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * lines
    cpus: list[float] = []
    rates: list[float] = []
    with Sink() as sink, Smtpd(filters, sink=sink) as server:
        _send(server.port, messages // 4, body)  # a run that does not count
        for _ in range(runs):
            pids = server.pids()
            begun, cpu = time.perf_counter(), procinfo.cpu_seconds(pids)
            _send(server.port, messages, body)
            seconds = time.perf_counter() - begun
            cpus.append((procinfo.cpu_seconds(pids) - cpu) / messages * 1e6)
            rates.append(messages / seconds)
    return cpus, rates


def _send(port: int, messages: int, body: bytes) -> None:
    """Send messages in as many sessions, by several clients at once."""
    errors: list[Exception] = []

    def client() -> None:
        try:
            for _ in range(messages // _CLIENTS):
                with Client(port) as smtp:
                    smtp.greet()
                    smtp.envelope("alice@example.net", "bob@example.org")
                    assert smtp.data(body).startswith("250 ")
                    smtp.quit()
        except (TimeoutError, AssertionError, OSError) as error:
            errors.append(error)

    threads = [threading.Thread(target=client) for _ in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


CASES = (
    Case("chain", "A chain of three filters that do nothing, next to one", _next_to_one),
    Case(
        "chain-smtpd",
        "The same under smtpd, next to its own chain of three C filters",
        _under_smtpd,
    ),
)
