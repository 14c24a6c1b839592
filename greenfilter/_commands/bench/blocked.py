"""Play sessions to a filter to find out which handlers keep its loop."""

from __future__ import annotations

import json
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .figures import Figures
from .load import Load
from .measure import BenchError, Patience, measure
from .thorough import Thorough

_SESSIONS = 24
_AT_ONCE = 6
_SECONDS = 4.0  # after which no session is begun
_TOTAL_SECONDS = 90.0
_GRACE_SECONDS = 5.0  # for an answer that is due at its deadline
_FRAME = re.compile(r'  File "(.+)", line (\d+) in (.+)')


@dataclass(frozen=True, slots=True)
class Stall:
    """A place in which the loop was kept.

    Args:
        hook: of the handler; "" for what runs beside handlers.
        name: of its function.
        file: of the line.
        line: counted from 1; 0 where it was not seen.
        times: how often.
        longest: seconds.
    """

    hook: str
    name: str
    file: str
    line: int
    times: int
    longest: float


@dataclass(slots=True)
class Findings:
    """What was seen.

    Args:
        figures: what was played.
        stalls: where the loop was kept.
        calls: of each hook.
        failures: how often each kind of exception was raised, by hook.
        cut: why it did not come to its end; "" if it did.
        stack: where a filter that fell silent stood, the innermost first: (file, line, function).
    """

    figures: Figures = field(default_factory=Figures)
    stalls: list[Stall] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    failures: dict[str, dict[str, int]] = field(default_factory=dict)
    cut: str = ""
    stack: list[tuple[str, int, str]] = field(default_factory=list)


def find_stalls(target: str, args: Sequence[str], deadline: float) -> Findings:
    """Run a filter in a process of its own, and play sessions to it.

    The filter really works: it connects to what it always connects to.

    Args:
        target: the filter's file, or ``package.module:name``.
        args: its own options.
        deadline: seconds within which each of its handlers answers.

    Raises:
        BenchError: it did not start, ended, or wrote what nobody asked for.
    """
    load = Load(sessions=_SESSIONS, concurrency=_AT_ONCE, seconds=_SECONDS)
    with tempfile.TemporaryDirectory() as directory:
        out, trace = Path(directory) / "seen.json", Path(directory) / "trace"
        options = {"target": target, "args": list(args), "out": str(out), "trace": str(trace)}
        command = [sys.executable, "-m", "greenfilter._commands.bench.watched", json.dumps(options)]
        patience = Patience(deadline + _GRACE_SECONDS, _TOTAL_SECONDS, signal.SIGUSR2)
        try:
            figures = measure(command, load, script=Thorough, patience=patience)
        except BenchError as error:
            findings = Findings(stack=_stack(trace))
            if out.exists():
                findings = _read(json.loads(out.read_text()), Figures())
            elif not findings.stack:
                raise
            findings.cut = str(error).splitlines()[0].rstrip(":")
            return findings
        return _read(json.loads(out.read_text()), figures)


def _read(seen: dict[str, Any], figures: Figures) -> Findings:
    calls: dict[str, int] = {}
    for entry in seen["handlers"]:
        calls[entry["hook"]] = calls.get(entry["hook"], 0) + entry["calls"]
    stalls = _merged([Stall(**stall) for stall in seen["stalls"]])
    return Findings(figures, stalls, calls, seen["failures"])


def _merged(stalls: list[Stall]) -> list[Stall]:
    """Count those whose line was not seen as others of their handler."""
    seen = {stall.hook: stall for stall in stalls if stall.line}
    merged = []
    for stall in stalls:
        unseen = [s for s in stalls if not s.line and seen.get(s.hook) is stall]
        if stall.line or stall.hook not in seen:
            times = stall.times + sum(s.times for s in unseen)
            longest = max([stall.longest, *(s.longest for s in unseen)])
            merged.append(replace(stall, times=times, longest=longest))
    return merged


def _stack(trace: Path) -> list[tuple[str, int, str]]:
    text = trace.read_text(errors="replace") if trace.exists() else ""
    found = (_FRAME.fullmatch(line) for line in text.splitlines())
    return [(match[1], int(match[2]), match[3]) for match in found if match]
