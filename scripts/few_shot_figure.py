#!/usr/bin/env python
"""The curves of sweeps over `data.per_class`, as an SVG: one panel a sweep, one curve a method.

    python scripts/few_shot_figure.py "ESC-10=OUT_OF_ONE_SWEEP" "FSDD=OUT_OF_ANOTHER" -o few_shot.svg

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

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 340, 52, 128, 34, 46
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
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--x-label", default="training clips of each class")
    options = parser.parse_args()
    panels = []
    for given in options.sweeps:
        title, _, folder = given.rpartition("=")
        panels.append((title or Path(folder).name, curves(Path(folder), options.key, options.metric)))
    write_text(options.out, figure(panels, options.metric, options.x_label))


def curves(folder: Path, key: str, metric: str) -> dict[str, list[Point]]:
    """By method; raises ConfigError where the sweep has nothing of the kind."""
    path = folder / "summary.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["methods"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: is no summary of a sweep: {error!r}") from error
    found: dict[str, list[Point]] = {}
    for entry in entries:
        if key not in entry["vary"]:
            raise ConfigError(f"{path}: {key} does not vary. {did_you_mean(key, entry['vary'])}")
        if metric not in entry:
            raise ConfigError(f"{path}: has no {metric}. {did_you_mean(metric, entry)}")
        if (mean := entry[metric]["mean"]) is not None:
            point = Point(float(entry["vary"][key]), mean, entry[metric]["deviation"] or 0.0)
            found.setdefault(entry["method"], []).append(point)
    if not found:
        raise ConfigError(f"{path}: no method has a whole seed yet")
    return {name: sorted(points, key=lambda point: point.x) for name, points in found.items()}


def figure(panels: list[tuple[str, dict[str, list[Point]]]], metric: str, x_label: str) -> str:
    """The SVG of all panels, on one scale."""
    points = [point for _, lines in panels for line in lines.values() for point in line]
    lowest = math.floor(min(p.mean - p.deviation for p in points) * 10) / 10
    highest = math.ceil(max(p.mean + p.deviation for p in points) * 10) / 10
    names = list(dict.fromkeys(name for _, lines in panels for name in lines))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    drawn = []
    for i, (title, lines) in enumerate(panels):
        panel = _panel(title, lines, (lowest, highest), colours, x_label)
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
    span: tuple[float, float],
    colours: dict[str, str],
    x_label: str,
) -> str:
    ticks = sorted({point.x for line in lines.values() for point in line})
    first, last = math.log(ticks[0]), math.log(ticks[-1])
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return LEFT + (math.log(x) - first) / max(last - first, 1e-9) * (right - LEFT)

    def up(y: float) -> float:
        return bottom - (y - span[0]) / max(span[1] - span[0], 1e-9) * (bottom - TOP)

    parts = [
        f'<text x="{(LEFT + right) / 2}" y="18" text-anchor="middle" font-size="13">{escape(title)}</text>'
    ]
    for i in range(round((span[1] - span[0]) * 10) + 1):
        y = span[0] + i / 10
        parts += [
            f'<line x1="{LEFT}" x2="{right}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>',
            f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:.1f}</text>',
        ]
    parts += [f'<text x="{across(x):.1f}" y="{bottom + 16}" text-anchor="middle">{x:g}</text>' for x in ticks]
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
    parts += _labels({name: up(line[-1].mean) for name, line in lines.items()}, colours, right + 8)
    return "\n".join(parts)


def _labels(wanted: dict[str, float], colours: dict[str, str], x: float) -> list[str]:
    """Names beside the ends of their curves, moved apart where they would touch."""
    placed: list[tuple[str, float]] = []
    for name, y in sorted(wanted.items(), key=lambda item: item[1]):
        placed.append((name, max(y, placed[-1][1] + LABEL_GAP) if placed else y))
    over = max(0.0, placed[-1][1] - (HEIGHT - BOTTOM))
    return [
        f'<text x="{x}" y="{y - over + 4:.1f}" fill="{colours[name]}">{escape(name.replace("_", " "))}</text>'
        for name, y in placed
    ]


if __name__ == "__main__":
    main()
