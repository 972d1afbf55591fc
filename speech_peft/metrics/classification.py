"""The figures of a classifier, from what is true of each clip and what the classifier gave each class.

Every function takes the same two arrays:

    target          `(n,)` class numbers, or `(n, c)` yes and no where a clip may be of several classes
    probabilities   `(n, c)`; a row of NaN is a clip that the classifier could not answer

A clip without an answer is never right, found in no class, ranked last, and without confidence.
For several classes at once, a class is predicted where its probability is at least one half.

scikit-learn counts what is counted once; imported where it is needed, as it takes a second to load.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.typing import NDArray

Target = Int[ndarray, " n"] | Bool[ndarray, "n c"]
Probabilities = Float[ndarray, "n c"]
THRESHOLD = 0.5
BINS = 15  # Guo et al. 2017, arXiv:1706.04599


@dataclass(frozen=True)
class Bin:
    """The predictions whose confidence lies in `(low, high]`."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Mean; None of an empty bin."""
    accuracy: float | None


@dataclass(frozen=True)
class McNemar:
    """Two systems on the same clips: how often only one was right, and how likely so unequal a split is."""

    only_a: int
    only_b: int
    p: float


def members(target: Target, classes: int) -> Bool[ndarray, "n c"]:
    """Which clip is of which class."""
    if target.ndim == 2:
        return target.astype(bool)
    return target[:, None] == np.arange(classes)


def answered(probabilities: Probabilities) -> Bool[ndarray, " n"]:
    """Which clips the classifier answered."""
    return np.asarray(np.isfinite(probabilities).all(axis=1))


def chosen(target: Target, probabilities: Probabilities) -> Bool[ndarray, "n c"]:
    """The classes that were predicted: the likeliest one, or each that reaches one half."""
    if target.ndim == 2:
        return probabilities >= THRESHOLD  # NaN reaches nothing
    best = _scores(probabilities).argmax(axis=1)
    return (best[:, None] == np.arange(probabilities.shape[1])) & answered(probabilities)[:, None]


def correct(target: Target, probabilities: Probabilities) -> Bool[ndarray, " n"]:
    """Which clips are right; with several classes, all of them and no other."""
    same = members(target, probabilities.shape[1]) == chosen(target, probabilities)
    return same.all(axis=1) & answered(probabilities)


def accuracy(target: Target, probabilities: Probabilities) -> float:
    """The share of clips that are right; with several classes, all of them and no other (subset accuracy)."""
    return float(correct(target, probabilities).mean())


def in_top(target: Target, probabilities: Probabilities, k: int) -> Bool[ndarray, " n"]:
    """Which clips have their class, or one of their classes, among the k likeliest; ties count against."""
    scores = _scores(probabilities)
    own = np.where(members(target, scores.shape[1]), scores, -np.inf).max(axis=1)
    is_best = members(target, scores.shape[1]) & (scores == own[:, None])
    above = ((scores >= own[:, None]) & ~is_best).sum(axis=1)
    return (above < k) & answered(probabilities) & (own > -np.inf)


def top_k_accuracy(target: Target, probabilities: Probabilities, k: int) -> float:
    """The share of clips with their class among the k likeliest."""
    return float(in_top(target, probabilities, k).mean())


def f1(target: Target, probabilities: Probabilities) -> Float[ndarray, " c"]:
    """F1 of each class; NaN of a class that no clip has and none was taken for."""
    from sklearn.metrics import f1_score

    if not len(target):
        return np.full(probabilities.shape[1], np.nan)
    wanted, found = _indicators(target, probabilities)
    options: Any = {"average": None, "zero_division": np.nan}  # which its defaults, strings, do not show
    return np.asarray(f1_score(wanted, found, **options))[:-1]


def f1_of_counts(hits: NDArray[np.number], either: NDArray[np.number]) -> Float[ndarray, "*shape"]:
    """F1 of counts: twice the hits, by how often the class was true plus how often it was predicted.

    For the bootstrap: ten thousand resamples in one division, where a library is called for each.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2.0 * hits / either


def macro_f1(target: Target, probabilities: Probabilities) -> float:
    """The mean F1 of the classes that occur, in the truth or in the answers."""
    return float(mean_defined(f1(target, probabilities)))


def average_precision(
    positive: Bool[ndarray, " n"], scores: Float[ndarray, " n"], weights: Float[ndarray, "r n"]
) -> Float[ndarray, " r"]:
    """The area under precision over recall, in steps: sum of (R_k - R_k-1) P_k; equal scores are one step.

    `weights` says how often each clip counts, in `r` resamples. NaN where no clip is positive. For the
    bootstrap: all resamples share one sorting, where scikit-learn would sort and check each anew.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # of each run of equal scores
    counts = weights[:, order]
    hits = np.cumsum(counts * positive[order], axis=1)[:, last]
    precision = hits / np.maximum(np.cumsum(counts, axis=1)[:, last], 1e-300)
    with np.errstate(invalid="ignore"):
        return (np.diff(hits, prepend=0.0, axis=1) * precision).sum(axis=1) / hits[:, -1]


def average_precisions(target: Target, probabilities: Probabilities) -> Float[ndarray, " c"]:
    """Average precision of each class; NaN of one that no clip has."""
    from sklearn.metrics import average_precision_score

    wanted = members(target, probabilities.shape[1])
    scores = np.nan_to_num(probabilities, nan=-1.0)  # below every probability: ranked last
    found = np.full(probabilities.shape[1], np.nan)
    for c in np.flatnonzero(wanted.any(axis=0)):
        found[c] = average_precision_score(wanted[:, c], scores[:, c])
    return found


def mean_average_precision(target: Target, probabilities: Probabilities) -> float:
    """mAP: the mean of the classes that some clip has."""
    return float(mean_defined(average_precisions(target, probabilities)))


def mean_defined(values: Float[ndarray, "*r c"]) -> Float[ndarray, "*r"]:
    """The mean of the values that are numbers; NaN where none is."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(defined, values, 0.0).sum(axis=-1) / defined.sum(axis=-1))


def calibration(target: Target, probabilities: Probabilities, bins: int = BINS) -> tuple[Bin, ...]:
    """How often predictions of each confidence are right, in bins of equal width.

    With one class a clip, a prediction is its likeliest class; with several, each class of each clip, and its
    confidence is the probability of being there.
    """
    confidence, right = _confidence(target, probabilities)
    edges = np.linspace(0, 1, bins + 1)
    at = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    n = np.bincount(at, minlength=bins)
    sums = np.bincount(at, confidence, bins), np.bincount(at, right, bins)
    means = [
        [float(total / count) if count else None for total, count in zip(s, n, strict=True)] for s in sums
    ]
    rows = zip(edges[:-1], edges[1:], n, *means, strict=True)
    return tuple(
        Bin(float(low), float(high), int(count), sure, good) for low, high, count, sure, good in rows
    )


def ece(target: Target, probabilities: Probabilities, bins: int = BINS) -> float:
    """Expected calibration error: the mean distance of confidence from accuracy, weighted by the bins."""
    return ece_of(calibration(target, probabilities, bins))


def ece_of(bins: tuple[Bin, ...]) -> float:
    """The expected calibration error of bins."""
    gaps = [one.n * abs((one.confidence or 0.0) - (one.accuracy or 0.0)) for one in bins]
    return sum(gaps) / max(1, sum(one.n for one in bins))


def confusion(target: Int[ndarray, " n"], probabilities: Probabilities) -> Int[ndarray, "c c_and_none"]:
    """Clips by their class (row) and the one they were taken for (column); the last column: no answer."""
    from sklearn.metrics import confusion_matrix

    classes = probabilities.shape[1]
    if not len(target):
        return np.zeros((classes, classes + 1), int)
    found = np.where(answered(probabilities), _scores(probabilities).argmax(axis=1), classes)
    return confusion_matrix(target, found, labels=range(classes + 1))[:classes]


def confusion_by_class(target: Target, probabilities: Probabilities) -> Int[ndarray, "c 4"]:
    """True positives, false positives, false negatives and true negatives of each class."""
    from sklearn.metrics import multilabel_confusion_matrix

    if not len(target):
        return np.zeros((probabilities.shape[1], 4), int)
    counts = multilabel_confusion_matrix(*_indicators(target, probabilities))[:-1]
    return counts.reshape(-1, 4)[:, [3, 1, 2, 0]]  # it gives true negatives first


def mcnemar(correct_a: Bool[ndarray, " n"], correct_b: Bool[ndarray, " n"]) -> McNemar:
    """The exact test: were both equally good, each clip that only one gets right would be a fair coin."""
    from scipy.stats import binomtest

    only_a = int((correct_a & ~correct_b).sum())
    only_b = int((correct_b & ~correct_a).sum())
    n = only_a + only_b
    return McNemar(only_a, only_b, float(binomtest(only_a, n).pvalue) if n else 1.0)


def _indicators(
    target: Target, probabilities: Probabilities
) -> tuple[Int[ndarray, "n d"], Int[ndarray, "n d"]]:
    """Truth and answers as scikit-learn takes several classes.

    With a last one that nobody has, or it would take a single class for two.
    """
    pairs = members(target, probabilities.shape[1]), chosen(target, probabilities)
    wanted, found = (np.pad(one.astype(int), ((0, 0), (0, 1))) for one in pairs)
    return wanted, found


def _scores(probabilities: Probabilities) -> Probabilities:
    """Without NaN: a clip without an answer ranks below all others."""
    return np.where(np.isnan(probabilities), -np.inf, probabilities)


def _confidence(
    target: Target, probabilities: Probabilities
) -> tuple[Float[ndarray, " m"], Bool[ndarray, " m"]]:
    """Of each prediction that was made: how sure it was, and whether it was right."""
    given = answered(probabilities)
    if target.ndim == 2:
        return probabilities[given].ravel(), target[given].astype(bool).ravel()
    return probabilities[given].max(axis=1, initial=0.0), correct(target, probabilities)[given]
