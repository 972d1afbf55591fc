"""The scores of restoration: figures of every system beside those of its input, and what they mean together.

A prediction is a recording as one system left it: `degraded` is the system that does nothing, `clean` the one
that knows. The result is plain data (`scores.json`), and what the report reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ...metrics import bootstrap, restoration
from ...metrics.metric import Figure, Metric
from ...metrics.slices import Options, grouping, known_columns, sliced, value_of
from ...metrics.wer import Counts
from ...predictions.restorations import Restoration
from ...predictions.run import Run as AnyRun
from ...predictions.run import paired

FORMAT = 1
INPUT = "degraded"
CLEAN = "clean"


Run = AnyRun[Restoration]
"""Its `seconds` are those of the restoring alone, without the guard's."""


def metrics_of(runs: Sequence[Run]) -> list[Metric]:
    """The metrics that predictions have a figure of, or the reason why not."""
    items = [item for run in runs for item in run.predictions]
    there = {name for item in items for name in (*item.figures, *item.reasons)}
    if any(item.words is not None for item in items):
        there.add("wer")
    if any(run.seconds for run in runs):
        there.add("rtf")
    return [one for one in restoration.known().values() if there & {one.name, *one.figures}]


def scores(runs: Sequence[Run], metrics: Sequence[Metric], options: Options | None = None) -> dict[str, Any]:
    """Everything `scores.json` holds."""
    options = options or Options(slice_by=("lang", "duration"))
    everything = [item for run in runs for item in run.predictions]
    known_columns(
        {name for item in everything for name in item.columns}, (*options.slice_by, options.group_by)
    )
    unit = grouping(everything, options.group_by)
    inputs = next((run for run in runs if run.name == INPUT), None)
    found = {run.name: _summary(run, inputs, metrics, unit, options) for run in runs}
    return {
        "format": FORMAT,
        "task": "restore",
        "metric": "dnsmos_ovrl",
        "metrics": {metric.name: metric.declaration() for metric in metrics},
        "bootstrap": {
            "unit": unit,
            "resamples": options.resamples,
            "level": options.level,
            "seed": options.seed,
        },
        "min_n": options.min_n,
        "runs": found,
        "comparisons": [
            pair
            for run in runs
            if inputs is not None and run.name not in (INPUT, CLEAN)
            for pair in compare(inputs, run, metrics, unit, options)
        ],
    }


def compare(a: Run, b: Run, metrics: Sequence[Metric], unit: str, options: Options) -> list[dict[str, Any]]:
    """By figure, how b differs from a on the recordings where both have it: paired bootstrap."""
    both, found = paired(a, b), []
    for name, figure in _figures(metrics).items():
        pairs = [(was, now) for was, now in both if name in was.figures and name in now.figures]
        if not pairs:
            continue
        old, new = (np.array([item.figures[name] for item in side]) for side in zip(*pairs, strict=True))
        groups = [value_of(item, unit) for _, item in pairs]
        change = bootstrap.difference(
            old,
            new,
            np.ones(len(pairs)),
            groups,
            resamples=options.resamples,
            level=options.level,
            seed=options.seed,
        )
        gained, sign = new - old, -1 if figure.better == "lower" else 1
        if figure.better == "near":
            gained = np.abs(old) - np.abs(new)
        row = {"a": a.name, "b": b.name, "figure": name, "n": len(pairs), "better": None, "worse": None}
        if figure.better is not None:
            row |= {"better": int((sign * gained > 0).sum()), "worse": int((sign * gained < 0).sum())}
        row["delta"] = float((new - old).mean())
        found.append(
            row | {key: value for key, value in (asdict(change) if change else {}).items() if key != "delta"}
        )
    return found


def _figures(metrics: Sequence[Metric]) -> dict[str, Figure]:
    """Those of a recording; those of a run are apart."""
    return {
        name: figure
        for metric in metrics
        if not isinstance(metric, restoration.OfRun)
        for name, figure in metric.figures.items()
    }


def _summary(
    run: Run, inputs: Run | None, metrics: Sequence[Metric], unit: str, options: Options
) -> dict[str, Any]:
    items = run.predictions
    audio = sum(item.duration for item in items)
    words, base = wer(items), None if inputs is None else wer(inputs.predictions)
    guards = [item.restored.get("guard") for item in items if item.restored]
    return {
        "n": len(items),
        "failed": sum(item.error is not None for item in items),
        "audio_seconds": audio,
        "rtf": run.seconds / audio if run.seconds and audio else None,
        "figures": {name: _mean(items, name, unit, options) for name in _figures(metrics)},
        "missing": _missing(items, metrics),
        "wer": words,
        "wer_ratio": ratio(words, base),
        "fell_back": sum(bool(guard) and guard.get("taken") != "asked" for guard in guards)
        if guards
        else None,
        "slices": {
            column: {
                value: {
                    "n": len(part),
                    "figures": {name: _plain_mean(part, name) for name in _figures(metrics)}
                    if len(part) >= options.min_n
                    else None,
                }
                for value, part in sliced(items, column).items()
            }
            for column in options.slice_by
        },
        "config": dict(run.config),
        "hardware": dict(run.hardware),
    }


def wer(items: Sequence[Restoration]) -> dict[str, Any] | None:
    """The judge's errors over the corpus, insertions apart: they are words that nobody said."""
    counted = [Counts(**item.words) for item in items if item.words is not None]
    if not counted:
        return None
    whole = sum(counted, Counts())
    return {"n": len(counted), "rate": whole.rate, "reference": whole.reference, **asdict(whole)}


def ratio(words: Mapping[str, Any] | None, base: Mapping[str, Any] | None) -> float | None:
    """Errors of the output over errors of the input; None where the input has none or texts are lacking."""
    if not words or not base or words["n"] != base["n"] or not base["rate"]:
        return None
    return words["rate"] / base["rate"]


def _mean(items: Sequence[Restoration], name: str, unit: str, options: Options) -> dict[str, Any]:
    have = [item for item in items if name in item.figures]
    if not have:
        return {"n": 0, "mean": None, "low": None, "high": None, "min": None, "max": None}
    values = np.array([item.figures[name] for item in have])
    found = bootstrap.interval(
        values,
        np.ones(len(have)),
        [value_of(item, unit) for item in have],
        resamples=options.resamples,
        level=options.level,
        seed=options.seed,
    )
    ends = asdict(found) if found else {"low": None, "high": None}
    return {
        "n": len(have),
        "mean": float(values.mean()),
        **ends,
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _plain_mean(items: Sequence[Restoration], name: str) -> float | None:
    values = [item.figures[name] for item in items if name in item.figures]
    return float(np.mean(values)) if values else None


def _missing(items: Sequence[Restoration], metrics: Sequence[Metric]) -> dict[str, dict[str, int]]:
    """By metric the reasons for n/a, and of how many recordings."""
    found: dict[str, dict[str, int]] = {}
    for metric in metrics:
        for item in items:
            if (why := item.reasons.get(metric.name)) is not None:
                found.setdefault(metric.name, {})
                found[metric.name][why] = found[metric.name].get(why, 0) + 1
    return found
