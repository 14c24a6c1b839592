"""The chart: how many times as fast as the C filter, and how much of each limit is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from .bench import SUPERVISED
from .report import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .bench import Row

Figure = Callable[["Row"], tuple[float, str]]
"""Length of a row's bar, and the text at its end."""

WIDTH, LABELS, BAR, STEP = 900, 390, 14, 22
GREEN, GREY, RED = "#2e7d32", "#90a4ae", "#c62828"
OFF_SCALE = 20
LEGEND = "Green: target reached. Red: not reached. Grey: no target."


def svg(rows: Iterable[Row]) -> str:
    """A chart of ``rows`` as an SVG document of its own."""
    rows = list(rows)
    # What a ratio is to is the line at 1.
    rates = [row for row in rows if row.ratio not in (None, 1.0) and row.values]
    own = [row for row in rates if row.base == SUPERVISED]
    faster = [row for row in rates if row.base != SUPERVISED]
    limits = [row for row in rows if row.share is not None and row.values]
    parts: list[str] = []
    top = 10
    if faster:
        top = _panel(
            parts, top, "Times as fast as the C filter on the same work (line: 1)", faster, _ratio
        )
    if own:
        top = _panel(
            parts, top, f"Times as fast as {SUPERVISED}, with one worker (line: 1)", own, _ratio
        )
    if limits:
        top = _panel(
            parts, top, "Share of the limit that is used (line: the limit)", limits, _share
        )
    parts.append(_text(10, top, LEGEND))
    top += 12
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
        f'width="{WIDTH}" height="{top}" font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _ratio(row: Row) -> tuple[float, str]:
    return row.ratio or 0.0, shown(row.ratio or 0.0, up=False)


def _share(row: Row) -> tuple[float, str]:
    return row.share or 0.0, f"{shown(row.value, up=True)} {row.unit}"


def _panel(parts: list[str], top: int, title: str, rows: list[Row], figure: Figure) -> int:
    """Draw one group of bars from ``top`` on; return where the next may begin."""
    room = WIDTH - LABELS - 130
    # What is far off the scale (the copy loop) is cut, so that the rest can be told apart.
    scale = room / max(1.2, *(v for v, _ in map(figure, rows) if v <= OFF_SCALE))
    parts.append(_text(10, top + 16, title, 'font-weight="bold"'))
    first = top + 28
    for place, row in enumerate(rows):
        y = first + place * STEP
        value, label = figure(row)
        color = RED if row.reached is False else GREEN if row.reached else GREY
        name = f"{row.case}: {row.subject}"
        parts.append(_text(LABELS - 6, y + BAR - 3, name, 'text-anchor="end"'))
        width = min(max(value * scale, 1), room)
        label += " (cut)" if value * scale > room else ""
        parts.append(
            f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{color}"/>'
        )
        parts.append(_text(LABELS + width + 5, y + BAR - 3, label))
    end = first + len(rows) * STEP
    x = LABELS + scale
    parts.append(f'<path d="M{x:.1f} {first - 4}V{end}" stroke="black" stroke-dasharray="4 3"/>')
    return end + 18


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'
