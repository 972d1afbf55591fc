#!/usr/bin/env python
"""Sweeps as an SVG, one panel each: curves over what varies, or methods over what they cost.

    python scripts/sweep_figure.py "ESC-10=OUT_OF_ONE_SWEEP" "FSDD=OUT_OF_ANOTHER" -o few_shot.svg
    python scripts/sweep_figure.py "ESC-10=OUT" --x adapter_bytes --x-label bytes -o bytes.svg

Reads each sweep's summary.json, or a copy of one under any name. A point is the mean over folds and seeds,
its bar the deviation over the seeds of the means over the folds. Over costs, what is on the Pareto front and
what has no adapter has its name beside it; the others have theirs under the mouse.
"""

import argparse
import json
from pathlib import Path

from figures import curves, scatter
from figures.axes import Point

from speech_peft.errors import ConfigError, did_you_mean
from speech_peft.files.atomic import write_text


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
        panels.append((title or Path(folder).stem, points(Path(folder), options)))
    if options.x is not None:
        drawn = scatter.figure(panels, options.metric, options.x_label)
    else:
        drawn = curves.figure(
            [(title, by_method(found)) for title, found in panels], options.metric, options.x_label
        )
    write_text(options.out, drawn)


def points(folder: Path, options: argparse.Namespace) -> list[Point]:
    """A point for each method and value; raises ConfigError where the sweep has nothing of the kind."""
    key, metric = options.key, options.metric
    path = folder / "summary.json" if folder.is_dir() else folder
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["methods"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: is no summary of a sweep: {error!r}") from error
    found = []
    for entry in entries:
        if options.x is None and key not in entry["vary"]:
            raise ConfigError(f"{path}: {key} does not vary. {did_you_mean(key, entry['vary'])}")
        for name in (metric, *([options.x] if options.x else [])):
            if name not in entry:
                raise ConfigError(f"{path}: has no {name}. {did_you_mean(name, entry)}")
        if (mean := entry[metric]["mean"]) is not None:
            x = entry["vary"][key] if options.x is None else entry[options.x]
            baseline = not entry.get("adapter_parameters", 1)
            deviation = entry[metric]["deviation"] or 0.0
            found.append(Point(entry["method"], float(x), mean, deviation, baseline))
    if not found:
        raise ConfigError(f"{path}: no method has a whole seed yet")
    return found


def by_method(found: list[Point]) -> dict[str, list[Point]]:
    """The points of each method from left to right."""
    names = dict.fromkeys(point.name for point in found)
    return {
        name: sorted((point for point in found if point.name == name), key=lambda point: point.x)
        for name in names
    }


if __name__ == "__main__":
    main()
