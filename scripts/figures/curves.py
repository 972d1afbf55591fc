"""A curve for each method over what varies, its name at the right end."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from .axes import BOTTOM, HEIGHT, TOP, WIDTH, Axes, Point, picture, shown, told

_RIGHT = 188  # pixels for names
# Okabe and Ito's colours, which differ for colour-blind eyes too; black among them.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#8C6D31")
_GAP = 13.0

Curves = Mapping[str, Sequence[Point]]


def figure(panels: Sequence[tuple[str, Curves]], metric: str, x_label: str) -> str:
    """The SVG of all panels, on one scale."""
    everything = [point for _, lines in panels for line in lines.values() for point in line]
    names = list(dict.fromkeys(name for _, lines in panels for name in lines))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    drawn = []
    for title, lines in panels:
        own = [point for line in lines.values() for point in line]
        values = sorted({point.x for point in own})
        ticks = values if len(values) <= 6 else ()
        axes = Axes.around(everything, WIDTH - _RIGHT, ticks)
        drawn.append(_panel(axes, title, lines, colours, metric, x_label))
    return picture(drawn, metric, x_label)


def _panel(
    axes: Axes, title: str, lines: Curves, colours: Mapping[str, str], metric: str, x_label: str
) -> list[str]:
    parts = axes.drawn(title, x_label)
    for name, line in lines.items():
        places = [(axes.across(point.x), axes.up(point.mean)) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="1.8"/>')
        for (x, y), point in zip(places, line, strict=True):
            dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colours[name]}"/>'
            parts.append(f"<g>{told(point, metric, x_label)}{dot}{axes.bar(point, colours[name])}</g>")
    ends = {name: (axes.across(line[-1].x), axes.up(line[-1].mean)) for name, line in lines.items()}
    return parts + _labels(ends, colours, axes.right + 8)


def _labels(wanted: Mapping[str, tuple[float, float]], colours: Mapping[str, str], x: float) -> list[str]:
    """Names at the right of the ends of their curves, moved apart where they would touch, a line to each."""
    gap = min(_GAP, (HEIGHT - BOTTOM - TOP) / max(1, len(wanted) - 1))
    placed: list[tuple[str, float]] = []
    for name, (_, y) in sorted(wanted.items(), key=lambda item: item[1][1]):
        placed.append((name, max(y, placed[-1][1] + gap) if placed else y))
    limit = HEIGHT - BOTTOM
    for i in reversed(range(len(placed))):  # what was pushed below the axis goes up again
        name, y = placed[i]
        placed[i] = (name, min(y, limit))
        limit = placed[i][1] - gap
    drawn = []
    for name, y in placed:
        at, colour = wanted[name], colours[name]
        if math.hypot(x - at[0], y - at[1]) > 20:
            ends = f'x1="{at[0] + 4:.1f}" y1="{at[1]:.1f}" x2="{x - 2}" y2="{y:.1f}"'
            drawn.append(f'<line {ends} stroke="{colour}" stroke-opacity="0.35" stroke-width="0.7"/>')
        drawn.append(f'<text x="{x}" y="{y + 4:.1f}" fill="{colour}">{escape(shown(name))}</text>')
    return drawn
