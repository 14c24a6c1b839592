"""Processor time for a message that rspamd judges, next to filter-rspamd with the same rspamd."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.support import rspamd as rspamd_support
from tests.support.rspamd import RspamdServer

from .. import peers
from ..bench import GREENFILTER, SUPERVISED, Bench, Case, Row, failed, start
from ..driver import NotStarted, WrongReplies
from ..peers import MissingPeer
from ..wire import Sessions, build, message_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CASE_NAME = "rspamd, 4 KB"
PEER = "filter-rspamd"
PLACES = ("/usr/libexec/opensmtpd/filter-rspamd", "/usr/local/libexec/smtpd/filter-rspamd")
MESSAGE = message_lines(57)
ENDS = (b"|.\n", b"|proceed\n")


def _peer(port: int) -> list[str]:
    for place in PLACES:
        if Path(place).exists():
            return [place, "-url", f"http://127.0.0.1:{port}"]
    raise MissingPeer("filter-rspamd is not installed")


def _measure(bench: Bench, name: str, command: Sequence[str]) -> tuple[float, ...]:
    """Give the microseconds per message of each run, after one that does not count."""
    messages = bench.size(500, 20)
    times = []
    with start(bench, name, command) as process:
        for turn in range(bench.runs + 1):
            bench.progress("scanning", turn / (bench.runs + 1))
            kind = Sessions(process.hooks, MESSAGE, lambda lines: lines)
            traffic = build(
                kind, messages, units=messages, lanes=1, at_once=16, markers=ENDS,
                first=turn * messages,
            )  # fmt: skip
            times.append(process.exchange(traffic).filter_cpu / messages * 1e6)
            if not all(line in process.received for line in MESSAGE):
                raise WrongReplies("lines of the message did not come back")
    return tuple(times[1:])


def _run(bench: Bench) -> list[Row]:
    if reason := rspamd_support.missing():
        return [failed(CASE_NAME, GREENFILTER, reason)]
    with RspamdServer(bench.folder / "rspamd") as server:
        option = f"--server=127.0.0.1:{server.port}"
        contestants: dict[str, Callable[[], Sequence[str]]] = {
            PEER: lambda: _peer(server.port),
            GREENFILTER: lambda: peers.greenfilter("rspamd", option),
            SUPERVISED: lambda: peers.supervised("rspamd", option),
        }
        rows: list[Row] = []
        base = 0.0
        for name, command in contestants.items():
            try:
                times = _measure(bench, name, command())
            except (MissingPeer, NotStarted, WrongReplies) as error:
                rows.append(failed(CASE_NAME, name, str(error)))
                continue
            base = median(times) if name == PEER else base
            ratio = base / median(times) if base and name != PEER else None
            rows.append(
                Row(
                    CASE_NAME, name, times, "us of processor/message", more_is_better=False,
                    cpu=median(times), ratio=ratio, base=PEER,
                )
            )  # fmt: skip
    return rows


CASE = Case("scanning", "messages that rspamd judges", _run)
