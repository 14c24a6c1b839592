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
"""Length of a row's bar, and the text beside it."""

WIDTH, LABELS, VALUES, BAR, STEP, GAP = 980, 390, 200, 14, 20, 8
GREEN, GREY, RED = "#2e7d32", "#90a4ae", "#c62828"
OFF_SCALE = 20
LEGEND = "Green: target reached. Red: not reached. Grey: no target."
QUICK = "Quick sizes: these figures show that it works, and are not to be quoted."


def svg(rows: Iterable[Row], *, quick: bool = False) -> str:
    """Return a chart of ``rows`` as an SVG document of its own.

    Args:
        rows: of all cases; those of a case follow one another.
        quick: say that the sizes were small.
    """
    rows = [row for row in rows if row.values]
    # A case is drawn with its C filter, which the others are compared to.
    with_ratio = {row.case for row in rows if row.ratio not in (None, 1.0)}
    rates = [row for row in rows if row.ratio is not None and row.case in with_ratio]
    own = [row for row in rates if row.base == SUPERVISED]
    to_c = [row for row in rates if row.base != SUPERVISED]
    limits = [row for row in rows if row.share is not None]
    parts: list[str] = []
    top = 10
    if quick:
        parts.append(_text(10, top + 12, QUICK, f'font-weight="bold" fill="{RED}"'))
        top += 24
    for title, group, figure in (
        ("Times as fast as the C or Go filter on the same work (line: 1)", to_c, _ratio),
        (f"Times as fast as {SUPERVISED}, with one worker (line: 1)", own, _ratio),
        ("Share of the limit that is used (line: the limit)", limits, _share),
    ):
        if group:
            top = _panel(parts, top, title, group, figure)
    parts.append(_text(10, top, LEGEND))
    top += 12
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
        f'width="{WIDTH}" height="{top}" font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _ratio(row: Row) -> tuple[float, str]:
    ratio = row.ratio or 0.0
    return ratio, f"{shown(ratio, up=False)} x   {shown(row.value, up=False)} {row.unit}"


def _share(row: Row) -> tuple[float, str]:
    return row.share or 0.0, f"{shown(row.value, up=True)} {row.unit}"


def _panel(parts: list[str], top: int, title: str, rows: list[Row], figure: Figure) -> int:
    """Draw one group of bars from ``top`` on; return where the next may begin."""
    room = WIDTH - LABELS - VALUES
    # What is far off the scale (the copy loop) is cut, so that the rest can be told apart.
    scale = room / max(1.2, *(v for v, _ in map(figure, rows) if v <= OFF_SCALE))
    parts.append(_text(10, top + 16, title, 'font-weight="bold"'))
    first = y = top + 28
    case = rows[0].case
    for row in rows:
        y += GAP if row.case != case else 0
        case = row.case
        _bar(parts, y, row, figure(row), scale, room)
        y += STEP
    x = LABELS + scale
    parts.append(f'<path d="M{x:.1f} {first - 4}V{y}" stroke="black" stroke-dasharray="4 3"/>')
    return y + 18


def _bar(
    parts: list[str], y: int, row: Row, figure: tuple[float, str], scale: float, room: int
) -> None:
    value, label = figure
    color = RED if row.reached is False else GREEN if row.reached else GREY
    name = f"{row.case}: {row.subject}"
    parts.append(_text(LABELS - 6, y + BAR - 3, name, 'text-anchor="end"'))
    width = min(max(value * scale, 1), room)
    label += " (bar cut)" if value * scale > room else ""
    parts.append(f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{color}"/>')
    # In a column of its own, where neither bars nor the line come.
    parts.append(_text(LABELS + room + 8, y + BAR - 3, label))


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'
