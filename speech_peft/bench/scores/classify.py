"""The scores of classification runs: accuracy, F1, mAP, calibration, confusions, folds, differences.

The result is plain data (`scores.json`), and what the report and the gate read.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...metrics import bootstrap, classification
from ...metrics.slices import Options, grouping, known_columns, sliced, value_of
from ...predictions.classes import ClassPrediction
from ...predictions.run import Run as AnyRun
from ...predictions.run import paired
from .class_arrays import STATISTICS, Arrays, Parts, arrays, labels_of, less

FORMAT = 1
TOP = (2, 3, 5)
SOURCES = ("src_file", "fsID")  # clips cut from one recording go together: ESC-50, UrbanSound8K
_FEWER = 10  # mAP sorts; it is resampled so many times less often than what is only counted


Run = AnyRun[ClassPrediction]


def scores(runs: Sequence[Run], options: Options | None = None) -> dict[str, Any]:
    """Everything `scores.json` holds, for any number of runs."""
    options = options or Options(slice_by=("duration",))
    everything = [item for run in runs for item in run.predictions]
    columns = {name for item in everything for name in item.columns}
    known_columns({*columns, "label"}, (*options.slice_by, options.group_by))
    labels = labels_of(everything)
    multi_label = arrays(everything, labels).multi_label
    unit = grouping(everything, options.group_by, SOURCES)
    return {
        "format": FORMAT,
        "task": "classify",
        "metric": headline(multi_label),
        "multi_label": multi_label,
        "labels": list(labels),
        "bootstrap": {
            "unit": unit,
            "resamples": options.resamples,
            "map_resamples": options.resamples // _FEWER,
            "level": options.level,
            "seed": options.seed,
        },
        "min_n": options.min_n,
        "runs": {run.name: _summary(run, labels, unit, options) for run in runs},
        "comparisons": [compare(a, b, unit, options) for a, b in combinations(runs, 2)],
    }


def headline(multi_label: bool) -> str:
    """`map` where a clip may be of several classes, else `accuracy`."""
    return "map" if multi_label else "accuracy"


def compare(a: Run, b: Run, unit: str, options: Options) -> dict[str, Any]:
    """How b differs from a on the clips that both have: paired bootstrap, and McNemar's exact test."""
    both = paired(a, b)
    old, new = [was for was, _ in both], [now for _, now in both]
    for was, now in both:
        if was.labels != now.labels:
            raise ConfigError(
                f"row {now.id!r} is {was.label!r} in {a.name} and {now.label!r} in {b.name}; "
                "runs are compared on the same references"
            )
    labels = labels_of([*old, *new])
    before, after = arrays(old, labels), arrays(new, labels)
    metric = headline(before.multi_label) if new else "accuracy"
    folds = _folds(old, a), _folds(new, b)
    of_a, of_b = (STATISTICS[metric](one, parts) for one, parts in zip((before, after), folds, strict=True))
    figure = less(of_b, of_a)
    found = bootstrap.difference_of(
        figure.statistic,
        [value_of(item, unit) for item in old],
        figure.columns,
        resamples=options.resamples // (_FEWER if metric == "map" else 1),
        level=options.level,
        seed=options.seed,
    )
    right_a = classification.correct(before.target, before.probabilities)
    right_b = classification.correct(after.target, after.probabilities)
    exact = classification.mcnemar(right_a, right_b)
    return {
        "a": a.name,
        "b": b.name,
        "metric": metric,
        "n": len(new),
        "better": exact.only_b,
        "worse": exact.only_a,
        "same": len(new) - exact.only_a - exact.only_b,
        **(asdict(found) if found else {"delta": None, "low": None, "high": None, "p": None}),
        "mcnemar_p": exact.p,
    }


def _summary(run: Run, labels: Sequence[str], unit: str, options: Options) -> dict[str, Any]:
    items = run.predictions
    one = arrays(items, labels)
    target, given = one.target, one.probabilities
    audio = sum(item.duration for item in items)
    seconds = run.seconds if run.seconds is not None else sum(item.time for item in items)
    bins = classification.calibration(target, given)
    figure = partial(_figure, one, _folds(items, run), [value_of(item, unit) for item in items], options)
    return {
        "n": len(items),
        "failed": sum(item.error is not None for item in items),
        "groups": len({value_of(item, unit) for item in items}),
        "accuracy": figure("accuracy")
        | {"correct": int(classification.correct(target, given).sum()), "n": len(items)},
        "macro_f1": figure("macro_f1"),
        "map": figure("map"),
        "top_k": {str(k): classification.top_k_accuracy(target, given, k) for k in TOP if k < len(labels)},
        "ece": {"rate": classification.ece_of(bins), "bins": [asdict(one) for one in bins]},
        "classes": _classes(one),
        "confusion": None if one.multi_label else classification.confusion(target, given).tolist(),
        "folds": _by_fold(run, one),
        "audio_seconds": audio,
        "seconds": seconds,
        "rtfx": audio / seconds if seconds else None,
        "slices": {column: _slices(run, labels, column, unit, options) for column in options.slice_by},
        "config": dict(run.config),
        "hardware": dict(run.hardware),
    }


def _figure(
    one: Arrays, parts: Parts, groups: Sequence[str], options: Options, name: str
) -> dict[str, float | None]:
    asked = STATISTICS[name](one, parts)
    value = bootstrap.value_of_all(asked.statistic, len(groups), asked.columns)
    found = bootstrap.interval_of(
        asked.statistic,
        groups,
        asked.columns,
        resamples=options.resamples // (_FEWER if name == "map" else 1),
        level=options.level,
        seed=options.seed,
    )
    interval = asdict(found) if found else {"low": None, "high": None}
    return {"rate": value if np.isfinite(value) else None, **interval}


def _classes(one: Arrays) -> dict[str, dict[str, Any]]:
    """Of every class: how many clips, precision, recall, F1 and average precision."""
    counts = classification.confusion_by_class(one.target, one.probabilities)
    f1 = classification.f1(one.target, one.probabilities)
    precisions = classification.average_precisions(one.target, one.probabilities)
    found = {}
    for name, (hit, false, missed, _), f, ap in zip(one.labels, counts.tolist(), f1, precisions, strict=True):
        found[name] = {
            "n": hit + missed,
            "predicted": hit + false,
            "precision": hit / (hit + false) if hit + false else None,
            "recall": hit / (hit + missed) if hit + missed else None,
            "f1": float(f) if np.isfinite(f) else None,
            "ap": float(ap) if np.isfinite(ap) else None,
        }
    return found


def _folds(items: Sequence[ClassPrediction], run: Run) -> list[list[int]]:
    """The clips of each fold, by number; one part where there are no folds."""
    column = run.config.get("fold_column")
    if column is None:
        return [list(range(len(items)))]
    parts: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        parts.setdefault(value_of(item, column), []).append(row)
    return [parts[value] for value in sorted(parts)]


def _by_fold(run: Run, one: Arrays) -> dict[str, Any] | None:
    """The figures of each fold, with their mean and deviation over the folds."""
    column = run.config.get("fold_column")
    if column is None:
        return None
    values: dict[str, dict[str, Any]] = {}
    for rows in _folds(run.predictions, run):
        part = one.of(rows)
        values[value_of(run.predictions[rows[0]], column)] = {
            "n": len(rows),
            "accuracy": classification.accuracy(part.target, part.probabilities),
            "macro_f1": _finite(classification.macro_f1(part.target, part.probabilities)),
            "map": _finite(classification.mean_average_precision(part.target, part.probabilities)),
        }
    means: dict[str, Any] = {}
    for name in STATISTICS:
        all_of_them = [cell[name] for cell in values.values() if cell[name] is not None]
        means[name] = {
            "mean": float(np.mean(all_of_them)) if all_of_them else None,
            "deviation": float(np.std(all_of_them, ddof=1)) if len(all_of_them) > 1 else None,
        }
    return {"column": column, "values": values, "over_folds": means}


def _slices(run: Run, labels: Sequence[str], column: str, unit: str, options: Options) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for value, items in sliced(run.predictions, column).items():
        figure = None
        if len(items) >= options.min_n:
            one, groups = arrays(items, labels), [value_of(item, unit) for item in items]
            figure = partial(_figure, one, _folds(items, run), groups, options)
        cells[value] = {
            "n": len(items),
            "accuracy": figure("accuracy") if figure else None,
            "macro_f1": figure("macro_f1") if figure else None,
        }
    return cells


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
