"""Processor time and memory of a process and its children, from the Linux kernel."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

KIB = 1024
_TURN_SECONDS = 0.05
_MOST_TURNS = 200
_IDLE_SHARE = 0.02  # of one processor: supervisors and stores look after things now and then


def tree(pid: int) -> list[int]:
    """``pid`` and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in parentheses may hold spaces and parentheses itself.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for known in found:
        found += children.get(known, ())
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Processor time that the processes have used, in seconds, exact to the nanosecond."""
    # clock_getcpuclockid(3): the clock of a process is ~pid << 3, and 2 selects user + system.
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def cpu_seconds_when_idle(pids: list[int]) -> float:
    """Wait until the processes have nothing left to do; then as ``cpu_seconds``.

    Raises:
        TimeoutError: they go on and on.
    """
    before = cpu_seconds(pids)
    for _ in range(_MOST_TURNS):
        time.sleep(_TURN_SECONDS)
        now = cpu_seconds(pids)
        if now - before < _IDLE_SHARE * _TURN_SECONDS:
            return now
        before = now
    raise TimeoutError(f"busy for {_MOST_TURNS * _TURN_SECONDS:g} s after the last reply")


def resident(pids: list[int]) -> int:
    """Bytes resident in memory, pages that are shared counted in each process."""
    return sum(_field(pid, "status", "VmRSS:") for pid in pids)


def proportional(pids: list[int]) -> int:
    """Bytes resident in memory, a page shared by n processes counted as 1/n (PSS)."""
    return sum(_field(pid, "smaps_rollup", "Pss:") for pid in pids)


def peak(pids: list[int]) -> int:
    """Most bytes ever resident since ``reset_peak``, each process at its own worst moment.

    Linux counts in batches per processor and thread: it may be some hundred KiB off (proc(5)).
    """
    return sum(_field(pid, "status", "VmHWM:") for pid in pids)


def reset_peak(pids: list[int]) -> None:
    """Let ``peak`` start again from what is resident now (proc(5), clear_refs)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _field(pid: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * KIB
    raise LookupError(f"no {name} in /proc/{pid}/{file}")
