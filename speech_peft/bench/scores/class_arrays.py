"""Predictions of classes as arrays, and their figures as functions of how often each clip was drawn.

`STATISTICS` are what the bootstrap asks for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ...errors import ConfigError, did_you_mean
from ...metrics import classification
from ...metrics.bootstrap import Statistic
from ...metrics.classification import Probabilities, Target
from ...predictions.classes import ClassPrediction

Drawn = Float[ndarray, "r n"]
Parts = Sequence[Sequence[int]]
"""The clips of each fold, by number; a single part where there are no folds."""


@dataclass(frozen=True)
class Arrays:
    """Predictions as the metrics take them."""

    labels: tuple[str, ...]
    target: Target
    probabilities: Probabilities

    @property
    def multi_label(self) -> bool:
        return self.target.ndim == 2

    def of(self, rows: Sequence[int]) -> "Arrays":
        """Only these clips."""
        return Arrays(self.labels, self.target[rows], self.probabilities[rows])


def labels_of(predictions: Sequence[ClassPrediction]) -> tuple[str, ...]:
    """The classes that the predictions speak of, in the order of their first mention.

    Where nothing was answered at all, those of the references.
    """
    spoken = dict.fromkeys(name for item in predictions for name in item.probabilities)
    return tuple(spoken or sorted({label for item in predictions for label in item.labels}))


def arrays(predictions: Sequence[ClassPrediction], labels: Sequence[str] | None = None) -> Arrays:
    """Targets and probabilities over `labels`; a class that a classifier does not know has probability 0.

    Raises ConfigError, naming the row, for a label that is not among the classes.
    """
    names = tuple(labels_of(predictions) if labels is None else labels)
    if len({item.multi_label for item in predictions}) > 1:
        raise ConfigError("some predictions are multi-label and some are not; score them apart")
    at = {name: index for index, name in enumerate(names)}
    for item in predictions:
        for label in item.labels:
            if label not in at:
                raise ConfigError(
                    f"row {item.id!r}: label {label!r} is not among the {len(names)} classes of the "
                    f"classifier. {did_you_mean(label, names)}"
                )
    given = np.full((len(predictions), len(names)), np.nan)
    for row, item in enumerate(predictions):
        if item.error is None:
            given[row] = 0.0
            for name, probability in item.probabilities.items():
                given[row, at[name]] = probability
    if predictions and predictions[0].multi_label:
        several = [[name in item.labels for name in names] for item in predictions]
        return Arrays(names, np.array(several, bool), given)
    return Arrays(names, np.array([at[item.label] for item in predictions], int), given)


@dataclass(frozen=True)
class Figure:
    """A figure as the bootstrap asks for it."""

    statistic: Statistic
    columns: Float[ndarray, "n k"] | None = None
    """What is summed over clips; None: the statistic needs how often each clip was drawn."""


def _accuracy(one: Arrays, parts: Parts) -> Figure:
    right = classification.correct(one.target, one.probabilities).astype(float)
    return Figure(lambda sums: sums[:, 0] / sums[:, 1], np.stack([right, np.ones_like(right)], axis=1))


def _macro_f1(one: Arrays, parts: Parts) -> Figure:
    wanted = classification.members(one.target, len(one.labels)).astype(float)
    found = classification.chosen(one.target, one.probabilities).astype(float)

    def statistic(sums: Float[ndarray, "r k"]) -> Float[ndarray, " r"]:
        hits, either = np.split(sums, 2, axis=1)
        return classification.mean_defined(classification.f1_of_counts(hits, either))

    return Figure(statistic, np.concatenate([wanted * found, wanted + found], axis=1))


def _map(one: Arrays, parts: Parts) -> Figure:
    """Of a cross-validation the mean over its folds: scores of different models do not rank together.

    Forman & Scholz 2010, "Apples-to-apples in cross-validation studies".
    """
    wanted = classification.members(one.target, len(one.labels))
    given = np.where(np.isnan(one.probabilities), -np.inf, one.probabilities)

    def of_part(drawn: Drawn, rows: Sequence[int]) -> Float[ndarray, " r"]:
        values = [
            classification.average_precision(wanted[rows, c], given[rows, c], drawn[:, rows])
            for c in range(len(one.labels))
        ]
        return classification.mean_defined(np.stack(values, axis=1))

    return Figure(
        lambda drawn: classification.mean_defined(np.stack([of_part(drawn, rows) for rows in parts], axis=1))
    )


def less(b: Figure, a: Figure) -> Figure:
    """The difference b - a of one figure of two systems."""
    if a.columns is None or b.columns is None:
        return Figure(lambda drawn: b.statistic(drawn) - a.statistic(drawn))
    width = a.columns.shape[1]
    return Figure(
        lambda sums: b.statistic(sums[:, width:]) - a.statistic(sums[:, :width]),
        np.concatenate([a.columns, b.columns], axis=1),
    )


STATISTICS: Mapping[str, Callable[[Arrays, Parts], Figure]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "map": _map,
}
