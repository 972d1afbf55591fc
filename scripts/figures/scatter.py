"""Methods over what they cost: the Pareto front and the baselines by name, the others in grey."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

from .axes import GREY, LEFT, TOP, WIDTH, Axes, Point, picture, shown, told

LOWER_IS_BETTER = frozenset({"wer", "cer", "error_rate", "ece"})
_FRONT, _BASE = "#0072B2", "#B3470A"
_EQUAL = 1e-9  # means that differ by rounding alone
_PAD = 1.7  # the first and last x lie inside the panel
_LETTER, _LINE = 5.9, 12.0  # pixels of a letter of the labels, at most, and of their height


@dataclass(frozen=True)
class Box:
    """What a label or a mark covers."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, wide) * max(0.0, high)


def front(points: Sequence[Point], metric: str) -> list[Point]:
    """From small to large: those that nothing as small or smaller equals."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -sign * point.mean)):
        if not found or sign * (point.mean - found[-1].mean) > _EQUAL:
            found.append(point)
    return found


def figure(panels: Sequence[tuple[str, Sequence[Point]]], metric: str, x_label: str) -> str:
    """The SVG of all panels, on one scale."""
    everything = [point for _, points in panels for point in points]
    axes = Axes.around(everything, WIDTH - 14, pad=_PAD)
    return picture(
        [_panel(axes, title, points, metric, x_label) for title, points in panels], metric, x_label
    )


def _panel(axes: Axes, title: str, points: Sequence[Point], metric: str, x_label: str) -> list[str]:
    best = front(points, metric)
    rest = [point for point in points if point not in best and not point.baseline]
    baselines = [point for point in points if point.baseline and point not in best]
    corners = _corners(axes, best)
    parts = [*axes.drawn(title, x_label), _stair(corners)]
    for group, colour in ((rest, GREY), (baselines, _BASE), (best, _FRONT)):
        for point in group:
            mark = _mark(axes, point, colour)
            parts.append(f"<g>{told(point, metric, x_label)}{axes.bar(point, colour)}{mark}</g>")
    taken = [_around(axes.across(point.x), axes.up(point.mean), 4.0) for point in points]
    taken += [_between(*ends) for ends in pairwise(corners)]
    return parts + list(_labels(axes, [*best, *baselines], taken, set(best))) + _legend(axes)


def _corners(axes: Axes, best: Sequence[Point]) -> list[tuple[float, float]]:
    """The best figure that a size can buy, as a stair."""
    corners = [(axes.across(best[0].x), axes.up(best[0].mean))]
    for point in best[1:]:
        corners += [(axes.across(point.x), corners[-1][1]), (axes.across(point.x), axes.up(point.mean))]
    return [*corners, (axes.right, corners[-1][1])]


def _stair(corners: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polyline points="{path}" fill="none" stroke="{_FRONT}" stroke-opacity="0.45"/>'


def _mark(axes: Axes, point: Point, colour: str) -> str:
    """A diamond for a baseline, a dot for a method."""
    x, y = axes.across(point.x), axes.up(point.mean)
    if point.baseline:
        return f'<path d="M{x:.1f} {y - 4.6:.1f}l4.6 4.6l-4.6 4.6l-4.6 -4.6z" fill="{colour}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{colour}"/>'


def _labels(axes: Axes, named: Sequence[Point], taken: list[Box], best: set[Point]) -> Iterator[str]:
    """A name beside each point, where it covers the least of what is `taken`, and nothing of other names."""
    names: list[Box] = []
    for point in named:
        x, y = axes.across(point.x), axes.up(point.mean)
        text = shown(point.name)
        places = [
            (
                distance
                + 4 * sum(box.overlap(one) for one in taken)
                + 1e3 * sum(box.overlap(one) for one in names)
                + 1e7 * _outside(axes, box),
                box,
            )
            for distance, box in _places(x, y, _LETTER * len(text))
        ]
        box = min(places, key=lambda one: one[0])[1]
        names.append(box)
        colour = _FRONT if point in best else _BASE
        near = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
        if math.dist(near, (x, y)) > 9:
            ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{near[0]:.1f}" y2="{near[1]:.1f}"'
            yield f'<line {ends} stroke="{colour}" stroke-opacity="0.5" stroke-width="0.7"/>'
        at = f'x="{(box.left + box.right) / 2:.1f}" y="{box.bottom - 3:.1f}" text-anchor="middle"'
        halo = 'stroke="white" stroke-width="3" paint-order="stroke"'
        yield f'<text {at} fill="{colour}" {halo}>{escape(text)}</text>'


def _places(x: float, y: float, size: float) -> Iterator[tuple[float, Box]]:
    """Where a label of so many pixels may stand, each with its distance from the point."""
    for distance in range(7, 150, 6):
        for turn in range(16):
            angle = turn * math.pi / 8
            across, up = math.cos(angle), math.sin(angle)
            middle_x = x + across * (distance + size / 2)
            middle_y = y - up * (distance + _LINE / 2)
            half = size / 2, _LINE / 2
            box = Box(middle_x - half[0], middle_y - half[1], middle_x + half[0], middle_y + half[1])
            yield distance + 2 * abs(up), box


def _outside(axes: Axes, box: Box) -> bool:
    return box.left < LEFT or box.right > axes.right or box.top < TOP or box.bottom > axes.bottom


def _around(x: float, y: float, radius: float) -> Box:
    return Box(x - radius, y - radius, x + radius, y + radius)


def _between(start: tuple[float, float], end: tuple[float, float]) -> Box:
    """A line as a box that is thin, not empty."""
    (left, right), (top, bottom) = sorted((start[0], end[0])), sorted((start[1], end[1]))
    return Box(left - 0.5, top - 0.5, right + 0.5, bottom + 0.5)


def _legend(axes: Axes) -> list[str]:
    """What marks mean, at the right of the title."""
    y = 14
    entries = [
        (_FRONT, f'<circle cx="0" cy="{y}" r="3.4" fill="{_FRONT}"/>', "Pareto front"),
        (_BASE, f'<path d="M0 {y - 4.6}l4.6 4.6l-4.6 4.6l-4.6 -4.6z" fill="{_BASE}"/>', "baselines"),
        ("#666", f'<circle cx="0" cy="{y}" r="3.4" fill="{GREY}"/>', "others"),
    ]
    drawn, x = [], axes.right - 230
    for colour, mark, text in entries:
        words = f'<text x="8" y="{y + 4}" fill="{colour}">{text}</text>'
        drawn.append(f'<g transform="translate({x} 0)">{mark}{words}</g>')
        x += 26 + 6.4 * len(text)
    return drawn
