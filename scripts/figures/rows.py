"""The rows of a table down, and a panel for each of its columns: a dot with its interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from .axes import decades, short

_ROW, _TOP, _BELOW, _PANEL, _GAP, _LETTER = 24, 34, 30, 230, 26, 6.2
_COLOUR = "#0072B2"


@dataclass(frozen=True)
class Cell:
    """A figure, and between what it lies; both ends are the figure itself where nobody said."""

    value: float
    low: float
    high: float


Columns = Mapping[str, Sequence[Cell | None]]


def figure(title: str, names: Sequence[str], columns: Columns, log: bool = False) -> str:
    """The SVG; on a logarithmic axis all panels have one scale, else each its own."""
    left = round(_LETTER * max(map(len, names))) + 16
    width, height = left + len(columns) * (_PANEL + _GAP), _TOP + _ROW * len(names) + _BELOW
    everything = [cell for cells in columns.values() for cell in cells if cell]
    drawn = []
    for place, (column, cells) in enumerate(columns.items()):
        ticks = _logarithmic(everything) if log else _linear([cell for cell in cells if cell])
        panel = _panel(column, names, cells, ticks, log, height - _BELOW)
        at = left + place * (_PANEL + _GAP)
        drawn.append(f'<g transform="translate({at} 0)">{chr(10).join(panel)}</g>')
    labels = [
        f'<text x="{left - 10}" y="{_middle(i) + 4:.1f}" text-anchor="end">{escape(name)}</text>'
        for i, name in enumerate(names)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="sans-serif" font-size="11" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *labels,
            *drawn,
            "</svg>\n",
        ]
    )


def _panel(
    column: str,
    names: Sequence[str],
    cells: Sequence[Cell | None],
    ticks: Sequence[float],
    log: bool,
    bottom: float,
) -> list[str]:
    def across(x: float) -> float:
        first, last, x = (math.log(each) if log else each for each in (ticks[0], ticks[-1], x))
        return (x - first) / (last - first) * _PANEL

    parts = [f'<text x="0" y="16" font-weight="bold">{escape(column)}</text>']
    for tick in ticks:
        at = f"{across(tick):.1f}"
        parts += [
            f'<line x1="{at}" x2="{at}" y1="{_TOP - 8}" y2="{bottom}" stroke="#ddd"/>',
            f'<text x="{at}" y="{bottom + 15}" text-anchor="middle">{short(tick)}</text>',
        ]
    for i, (name, cell) in enumerate(zip(names, cells, strict=True)):
        if cell is None:
            continue
        value, low, high = (f"{across(x):.1f}" for x in (cell.value, cell.low, cell.high))
        y = f"{_middle(i):.1f}"
        said = f"{name}: {cell.value:g}" + (f" ({cell.low:g}, {cell.high:g})" if cell.low < cell.high else "")
        parts.append(
            f'<g><title>{escape(said)}</title><line x1="{low}" x2="{high}" y1="{y}" y2="{y}" '
            f'stroke="{_COLOUR}" stroke-width="2"/><circle cx="{value}" cy="{y}" r="4" fill="{_COLOUR}"/></g>'
        )
    return parts


def _middle(row: int) -> float:
    return _TOP + _ROW * (row + 0.5)


def _linear(cells: Sequence[Cell]) -> list[float]:
    """Round numbers around all of them, five at most between."""
    least, most = min(cell.low for cell in cells), max(cell.high for cell in cells)
    sizes = (times * 10.0**power for power in range(-4, 6) for times in (1, 2, 5))
    step = next(size for size in sizes if most - least <= 5 * size)
    first, last = math.floor(least / step), max(math.ceil(most / step), math.floor(least / step) + 1)
    return [round(i * step, 6) for i in range(first, last + 1)]


def _logarithmic(cells: Sequence[Cell]) -> list[float]:
    """One and three times powers of ten around all of them."""
    least, most = min(cell.low for cell in cells), max(cell.high for cell in cells)
    found = decades(least / 3.4, most * 3.4)
    first = max((x for x in found if x <= least), default=found[0])
    last = min((x for x in found if x >= most), default=found[-1])
    return [x for x in found if first <= x <= last]
