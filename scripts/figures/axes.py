"""A panel with a logarithmic x and a linear y, and the picture that holds several side by side."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 520, 380, 52, 34, 46
GREY = "#9a9a9a"


@dataclass(frozen=True)
class Point:
    """The figure of one method at one value of x."""

    name: str
    x: float
    mean: float
    deviation: float
    baseline: bool = False
    """Whether nothing of a method is in it: a probe of the frozen encoder, or all of it fine-tuned."""


@dataclass(frozen=True)
class Axes:
    """Where values lie, in pixels of a panel; what is drawn ends at `right`."""

    first: float
    last: float
    lowest: int
    highest: int
    step: float
    right: float
    x_ticks: tuple[float, ...]

    @classmethod
    def around(
        cls, points: Sequence[Point], right: float, x_ticks: Sequence[float] = (), pad: float = 1.0
    ) -> "Axes":
        """Axes that hold all points with their deviations; decades where no ticks are given."""
        least, most = min(p.mean - p.deviation for p in points), max(p.mean + p.deviation for p in points)
        step = next(size for size in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if most - least <= 8 * size)
        first, last = min(p.x for p in points) / pad, max(p.x for p in points) * pad
        return cls(
            first,
            last,
            math.floor(least / step),
            math.ceil(most / step),
            step,
            right,
            tuple(x_ticks) or decades(first, last),
        )

    @property
    def bottom(self) -> float:
        return HEIGHT - BOTTOM

    def across(self, x: float) -> float:
        return LEFT + (math.log(x / self.first)) / max(math.log(self.last / self.first), 1e-9) * (
            self.right - LEFT
        )

    def up(self, y: float) -> float:
        share = (y / self.step - self.lowest) / max(self.highest - self.lowest, 1)
        return self.bottom - share * (self.bottom - TOP)

    def drawn(self, title: str, x_label: str) -> list[str]:
        """Grid, ticks, the panel's title and what x is."""
        middle, digits = (LEFT + self.right) / 2, 2 if self.step < 0.1 else 1
        parts = [f'<text x="{LEFT}" y="18" font-size="13" font-weight="bold">{escape(title)}</text>']
        for y in (i * self.step for i in range(self.lowest, self.highest + 1)):
            at = self.up(y)
            parts += [
                f'<line x1="{LEFT}" x2="{self.right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>',
                f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:.{digits}f}</text>',
            ]
        for x in self.x_ticks:
            at = f"{self.across(x):.1f}"
            parts += [
                f'<line x1="{at}" x2="{at}" y1="{self.bottom}" y2="{self.bottom + 4}" stroke="#888"/>',
                f'<text x="{at}" y="{self.bottom + 16}" text-anchor="middle">{short(x)}</text>',
            ]
        below = f'x="{middle}" y="{self.bottom + 34}" text-anchor="middle"'
        return [*parts, f"<text {below}>{escape(x_label)}</text>"]

    def bar(self, point: Point, colour: str) -> str:
        """The deviation of a point, if it has one."""
        if not point.deviation:
            return ""
        x, low, high = self.across(point.x), point.mean - point.deviation, point.mean + point.deviation
        ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{self.up(low):.1f}" y2="{self.up(high):.1f}"'
        return f'<line {ends} stroke="{colour}" stroke-opacity="0.5"/>'


def told(point: Point, metric: str, x_label: str) -> str:
    """What a point says when it is pointed at."""
    spread = f" ± {point.deviation:.3f}" if point.deviation else ""
    said = f"{shown(point.name)}: {metric} {point.mean:.3f}{spread}, {point.x:,.0f} {x_label}"
    return f"<title>{escape(said)}</title>"


def picture(panels: Sequence[Iterable[str]], metric: str, x_label: str) -> str:
    """The SVG of all panels."""
    drawn = [
        f'<g transform="translate({i * WIDTH} 0)">{chr(10).join(panel)}</g>' for i, panel in enumerate(panels)
    ]
    turned = f'transform="translate(13 {HEIGHT / 2}) rotate(-90)" text-anchor="middle"'
    width = WIDTH * len(panels)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
            f'height="{HEIGHT}" font-family="sans-serif" font-size="11" role="img">',
            f"<title>{escape(metric)} by {escape(x_label)}</title>",
            f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
            f"<text {turned}>{escape(metric)}</text>",
            *drawn,
            "</svg>\n",
        ]
    )


def decades(first: float, last: float) -> tuple[float, ...]:
    """Powers of ten between both, and three times each; the ends themselves where there is none."""
    powers = range(math.floor(math.log10(first)), math.floor(math.log10(last)) + 1)
    found = [times * 10.0**power for power in powers for times in (1, 3)]
    return tuple(x for x in found if first <= x <= last) or (first, last)


def short(x: float) -> str:
    """1000000 is 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if x >= size:
            return f"{x / size:g}{letter}"
    return f"{x:g}"


def shown(name: str) -> str:
    return name.replace("_", " ")
