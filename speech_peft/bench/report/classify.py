"""`report.html` of classification: figures, confusions, calibration, clips by how confidently wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...metrics.classification import THRESHOLD
from ...predictions.classes import ClassPrediction
from ...predictions.run import by_recording, first
from ..scores.classify import Run
from . import facts
from .page import Limits, Loader, Media, bars, embed, fill, slice_tables
from .regressions import baselines, worse_than

_SHOWN = 3  # likeliest classes of a clip
_WIDEST = 60  # classes of a confusion matrix that a page can show
_PAIRS = 20


def render(
    scores: Mapping[str, Any],
    runs: Sequence[Run],
    folder: str | Path,
    load: Loader | None = None,
    title: str | None = None,
    limits: Limits | None = None,
) -> str:
    """The page. `folder` is where it will lie, for relative links; without `load` there are no players.

    Without a `title`, one that is made of what was measured.
    """
    limits = limits or Limits()
    names = [run.name for run in runs]
    rows = worst_first(runs)
    shown = rows[: limits.rows]
    media = embed([first(row) for row in shown], Path(folder), load, limits)
    return fill(
        "class_report.html",
        head=facts.of_runs("Audio classification", runs, "clips", title),
        scores=scores,
        runs=runs,
        lead=scores["metric"],
        slices=slice_tables(scores),
        folds=_folds(scores),
        matrices=[(name, _matrix(scores["labels"], run)) for name, run in scores["runs"].items()],
        confusions=[(run.name, confusions(run)) for run in runs],
        diagrams=[(name, run["ece"]) for name, run in scores["runs"].items()],
        rows=[
            _row(row, one) | {"worse": worse_than(row, names, names[-1], _broke)}
            for row, one in zip(shown, media, strict=True)
        ],
        baselines=baselines(names, names[-1]) if names else [],
        hidden=len(rows) - len(shown),
        bars=bars(scores),
    )


def worst_first(runs: Sequence[Run]) -> list[dict[str, ClassPrediction]]:
    """Clips as `{run: prediction}`: the most confident errors of the last run, the one in question, first.

    Then clips without an answer, then those that are right, the least sure first.
    """
    return sorted(by_recording(runs), key=lambda row: badness(list(row.values())[-1]), reverse=True)


def badness(item: ClassPrediction) -> float:
    """Up to 1 of a right answer, 1 without one, more of a wrong one the surer it was."""
    if item.error is not None or not item.probabilities:
        return 1.0
    if not item.multi_label:
        name, probability = item.top[0]
        return 1 - probability if name in item.labels else 1 + probability
    off = {name: abs(p - (name in item.labels)) for name, p in item.probabilities.items()}
    wrong = [off[name] for name in item.probabilities if (name in item.labels) != (name in predicted(item))]
    return 1 + max(wrong) if wrong else max(off.values())


def predicted(item: ClassPrediction) -> tuple[str, ...]:
    """The classes that a clip was taken for."""
    if item.multi_label:
        return tuple(name for name, probability in item.top if probability >= THRESHOLD)
    return tuple(name for name, _ in item.top[:1])


def right(item: ClassPrediction) -> bool:
    """Whether a clip was taken for all that it is and nothing else."""
    return item.error is None and frozenset(predicted(item)) == item.labels


def _broke(was: ClassPrediction, now: ClassPrediction) -> bool:
    return right(was) and not right(now)


def confusions(run: Run) -> list[dict[str, Any]]:
    """What was most often taken for what; of several classes, which were missed and which made up."""
    found: Counter[tuple[str, str]] = Counter()
    for item in run.predictions:
        taken_for = set(predicted(item))
        if item.multi_label:
            found.update((name, "") for name in item.labels - taken_for)
            found.update(("", name) for name in taken_for - item.labels)
        elif not taken_for & item.labels:
            found[item.label, next(iter(taken_for), "")] += 1
    return [{"was": was, "heard": heard, "times": times} for (was, heard), times in found.most_common(_PAIRS)]


def _row(row: Mapping[str, ClassPrediction], media: Media) -> dict[str, Any]:
    return {
        "prediction": first(row),
        "media": media,
        "runs": {
            name: {
                "right": right(item),
                "key": badness(item),
                "predicted": predicted(item),
                "top": item.top[:_SHOWN],
                "error": item.error,
            }
            for name, item in row.items()
        },
    }


def _matrix(labels: Sequence[str], run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a confusion matrix, each cell with its share of the row; empty where a page cannot show it."""
    counts = run["confusion"]
    if counts is None or len(labels) > _WIDEST:
        return []
    heard = [*labels, ""]
    found = []
    for name, row in zip(labels, counts, strict=True):
        total = sum(row) or 1
        cells = [
            {"n": n, "share": n / total, "heard": other, "right": other == name}
            for other, n in zip(heard, row, strict=True)
        ]
        found.append({"was": name, "n": sum(row), "cells": cells})
    return found


def _folds(scores: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Each fold's figures across the runs; nothing where no run has folds."""
    by_run = [(run["folds"] or {"values": {}})["values"] for run in scores["runs"].values()]
    names = dict.fromkeys(name for values in by_run for name in values)
    return [(name, [values.get(name) for values in by_run]) for name in names]
