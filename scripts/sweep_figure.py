#!/usr/bin/env python
"""Sweeps as an SVG, one panel each: curves over what varies, or methods over what they cost.

    python scripts/sweep_figure.py "ESC-10=OUT_OF_ONE_SWEEP" "FSDD=OUT_OF_ANOTHER" -o few_shot.svg
    python scripts/sweep_figure.py "ESC-10=OUT" --x adapter_bytes --x-label bytes -o bytes.svg

Reads each sweep's summary.json. A point is the mean over folds and seeds, its bar the deviation over the
seeds of the means over the folds.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from speech_peft.audio.atomic import write_text
from speech_peft.errors import ConfigError, did_you_mean

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 520, 380, 52, 188, 34, 46
# Okabe and Ito's colours, which differ for colour-blind eyes too; and marks that differ in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#8C6D31")
LABEL_GAP = 13.0


@dataclass(frozen=True)
class Point:
    """The figure of one method at one value."""

    x: float
    mean: float
    deviation: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", metavar="[TITLE=]FOLDER")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--key", default="data.per_class", help="what varies along x, on a logarithmic axis")
    parser.add_argument(
        "--x", help="a figure of the summary along x, such as adapter_bytes, instead of --key"
    )
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--x-label", default="training clips of each class")
    options = parser.parse_args()
    panels = []
    for given in options.sweeps:
        title, _, folder = given.rpartition("=")
        panels.append((title or Path(folder).name, curves(Path(folder), options)))
    write_text(options.out, figure(panels, options.metric, options.x_label))


def curves(folder: Path, options: argparse.Namespace) -> dict[str, list[Point]]:
    """By method; raises ConfigError where the sweep has nothing of the kind."""
    key, metric = options.key, options.metric
    path = folder / "summary.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["methods"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: is no summary of a sweep: {error!r}") from error
    found: dict[str, list[Point]] = {}
    for entry in entries:
        if options.x is None and key not in entry["vary"]:
            raise ConfigError(f"{path}: {key} does not vary. {did_you_mean(key, entry['vary'])}")
        for name in (metric, *([options.x] if options.x else [])):
            if name not in entry:
                raise ConfigError(f"{path}: has no {name}. {did_you_mean(name, entry)}")
        if (mean := entry[metric]["mean"]) is not None:
            x = entry["vary"][key] if options.x is None else entry[options.x]
            point = Point(float(x), mean, entry[metric]["deviation"] or 0.0)
            found.setdefault(entry["method"], []).append(point)
    if not found:
        raise ConfigError(f"{path}: no method has a whole seed yet")
    return {name: sorted(points, key=lambda point: point.x) for name, points in found.items()}


def figure(panels: list[tuple[str, dict[str, list[Point]]]], metric: str, x_label: str) -> str:
    """The SVG of all panels, on one scale."""
    points = [point for _, lines in panels for line in lines.values() for point in line]
    least, most = min(p.mean - p.deviation for p in points), max(p.mean + p.deviation for p in points)
    step = next(size for size in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if most - least <= 8 * size)
    scale = (math.floor(least / step), math.ceil(most / step), step)
    names = list(dict.fromkeys(name for _, lines in panels for name in lines))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    drawn = []
    for i, (title, lines) in enumerate(panels):
        panel = _panel(title, lines, scale, colours, x_label)
        drawn.append(f'<g transform="translate({i * WIDTH} 0)">{panel}</g>')
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


def _panel(
    title: str,
    lines: dict[str, list[Point]],
    scale: tuple[int, int, float],
    colours: dict[str, str],
    x_label: str,
) -> str:
    found = sorted({point.x for line in lines.values() for point in line})
    ticks = found if len(found) <= 6 else _decades(found[0], found[-1])
    first, last = math.log(min(found[0], ticks[0])), math.log(max(found[-1], ticks[-1]))
    lowest, highest, step = scale
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return LEFT + (math.log(x) - first) / max(last - first, 1e-9) * (right - LEFT)

    def up(y: float) -> float:
        return bottom - (y / step - lowest) / max(highest - lowest, 1) * (bottom - TOP)

    parts = [
        f'<text x="{(LEFT + right) / 2}" y="18" text-anchor="middle" font-size="13">{escape(title)}</text>'
    ]
    digits = 2 if step < 0.1 else 1
    for y in (i * step for i in range(lowest, highest + 1)):
        parts += [
            f'<line x1="{LEFT}" x2="{right}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>',
            f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:.{digits}f}</text>',
        ]
    parts += [
        f'<text x="{across(x):.1f}" y="{bottom + 16}" text-anchor="middle">{_short(x)}</text>' for x in ticks
    ]
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{bottom + 34}" text-anchor="middle">{escape(x_label)}</text>'
    )
    for name, line in lines.items():
        places = [(across(point.x), up(point.mean)) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="1.8"/>')
        for (x, y), point in zip(places, line, strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colours[name]}"/>')
            if point.deviation:
                high, low = up(point.mean + point.deviation), up(point.mean - point.deviation)
                parts.append(
                    f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" '
                    f'stroke="{colours[name]}" stroke-opacity="0.5"/>'
                )
    ends = {name: (across(line[-1].x), up(line[-1].mean)) for name, line in lines.items()}
    return "\n".join(parts + _labels(ends, colours, right + 8))


def _decades(first: float, last: float) -> list[float]:
    """Powers of ten that enclose both."""
    return [10.0**i for i in range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)]


def _short(x: float) -> str:
    """1000000 is 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if x >= size:
            return f"{x / size:g}{letter}"
    return f"{x:g}"


def _labels(wanted: dict[str, tuple[float, float]], colours: dict[str, str], x: float) -> list[str]:
    """Names at the right of the ends of their curves, moved apart where they would touch, a line to each."""
    gap = min(LABEL_GAP, (HEIGHT - BOTTOM - TOP) / max(1, len(wanted) - 1))
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
        text = escape(name.replace("_", " "))
        drawn.append(f'<text x="{x}" y="{y + 4:.1f}" fill="{colour}">{text}</text>')
    return drawn


if __name__ == "__main__":
    main()
