"""The table for a terminal or a README, the facts of the machine, and the same as JSON."""

from __future__ import annotations

import json
import math
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .bench import Row

HEADINGS = ("case", "filter", "median", "lowest to highest", "CPU µs", "ratio", "target", "reached")
DIGITS = 3
DEBIAN_PACKAGES = (
    "libopensmtpd-dev",
    "opensmtpd-filter-dkimsign",
    "opensmtpd-filter-rspamd",
    "opensmtpd-filter-senderscore",
    "rspamd",
    "clamav-daemon",
)


def shown(value: float, *, up: bool) -> str:
    """``value`` with three digits, rounded up or down, but never whole digits lost.

    Args:
        value: any number.
        up: away from a limit's favour: True for what should be small, False for what should be big.
    """
    if not math.isfinite(value):
        return "-"
    places = max(0, DIGITS - 1 - math.floor(math.log10(abs(value)))) if value else 0
    scale = 10**places
    # What binary fractions add to an exact decimal is not a reason to go a step further.
    scaled = round(value * scale, 6)
    whole = (math.ceil if up else math.floor)(scaled)
    return f"{whole / scale:,.{places}f}"


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table as text."""
    up = not row.more_is_better
    if row.values:
        middle = f"{shown(row.value, up=up)} {row.unit}"
        spread = f"{shown(min(row.values), up=up)} to {shown(max(row.values), up=up)}"
    else:
        middle, spread = "failed", "-"
    return (
        row.case,
        row.subject,
        middle,
        spread,
        "-" if row.cpu is None else shown(row.cpu, up=True),
        "-" if row.ratio is None else shown(row.ratio, up=False),
        row.target or "-",
        {None: "-", True: "yes", False: "NO"}[row.reached],
    )


def table(rows: Iterable[Row]) -> str:
    """All rows as a Markdown table, and below it the notes."""
    rows = list(rows)
    lines = [HEADINGS, *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    parts = [_line(HEADINGS, widths), _line(["-" * width for width in widths], widths)]
    parts += [_line(cells(row), widths) for row in rows]
    notes = {
        row.note: f"- {row.case}, {row.subject}: {_short(row.note)}" for row in rows if row.note
    }
    return "\n".join([*parts, "", *notes.values()]).rstrip()


def environment() -> dict[str, str]:
    """The machine and the versions that the figures belong to."""
    names = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    count = Path("/proc/cpuinfo").read_text().count("processor\t:")
    facts = {
        "machine": f"{count} x {', '.join(sorted(names)) or platform.machine()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
    for package in ("greenfilter", "gevent", "greenlet", "cryptography", "dnspython"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    for package in DEBIAN_PACKAGES:
        facts[package] = _debian_version(package)
    return facts


def write_json(path: Path, rows: Iterable[Row], settings: dict[str, Any]) -> None:
    """Everything, nothing rounded."""
    data = {
        "environment": environment(),
        "settings": settings,
        "rows": [row.plain() for row in rows],
    }
    path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")


def _short(note: str) -> str:
    words = " ".join(note.split())
    return words if len(words) < 300 else f"{words[:300]} ..."


def _line(texts: Iterable[str], widths: list[int]) -> str:
    padded = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def _debian_version(package: str) -> str:
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout or "not installed"
    except FileNotFoundError:
        return "unknown"
