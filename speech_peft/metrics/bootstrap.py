"""How far a corpus error rate could have come out otherwise: the blockwise bootstrap.

Errors of one speaker (or one recording) go together, so whole speakers are drawn with replacement, not
utterances (Bisani & Ney 2004; Liu & Peng 2020, arXiv:1912.09508). Each resample is a row of a count matrix,
and all resampled rates are one matrix product:

    rate*_r = (C errors)_r / (C words)_r,    C[r, g] = how often resample r drew group g

Figures that are no ratio of sums (F1, average precision) are functions of how often each clip was drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
LEVEL = 0.95
_BLOCK = 4_000_000  # cells of the count matrix held at once: 32 MB whatever the corpus
_MANY = 5_000  # groups; of fewer, each is drawn by itself

Groups = Sequence[Any] | NDArray[Any]
"""Who belongs together: one value per clip."""
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From `(resample, clip)`, how often each was drawn, to `(resample,)`; NaN where it is undefined."""


@dataclass(frozen=True)
class Interval:
    """The central `level` of the resampled rates."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Rate of b minus rate of a on the same utterances (negative: b is better), with a two-sided p."""

    delta: float
    low: float
    high: float
    p: float


def interval(
    errors: ArrayLike,
    words: ArrayLike,
    groups: Groups,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval | None:
    """The interval of Σerrors / Σwords over groups; None where fewer than two leave nothing to draw."""
    table = _sums(groups, errors, words)
    if len(table) < 2 or not table[:, 1].sum():
        return None
    drawn = _resampled(table, resamples, seed)
    rates = drawn[:, 0] / _at_least_one(drawn[:, 1])
    return Interval(*_central(rates, level))


def difference(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    words: ArrayLike,
    groups: Groups,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Difference | None:
    """Both systems are drawn on the same resampled speakers, so what is hard for both cancels."""
    table = _sums(groups, np.asarray(errors_b, float) - np.asarray(errors_a, float), words)
    if len(table) < 2 or not table[:, 1].sum():
        return None
    drawn = _resampled(table, resamples, seed)
    deltas = drawn[:, 0] / _at_least_one(drawn[:, 1])
    return Difference(float(table[:, 0].sum() / table[:, 1].sum()), *_central(deltas, level), _p(deltas))


def interval_of(
    statistic: Statistic,
    groups: Groups,
    columns: NDArray[np.float64] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval | None:
    """The interval of any figure over groups; None where nothing is left to draw or the figure is undefined.

    A figure of sums over clips gives their `(clip, column)` and is asked with `(resample, column)` sums: much
    faster than with how often each clip was drawn.

    >>> interval_of(lambda drawn: drawn @ correct / drawn.sum(axis=1), speakers)      # doctest: +SKIP
    """
    values = _values(statistic, groups, columns, resamples, seed)
    return Interval(*_central(values, level)) if len(values) else None


def difference_of(
    statistic: Statistic,
    groups: Groups,
    columns: NDArray[np.float64] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Difference | None:
    """The same for a figure that is itself a difference: b minus a, both on the same drawn clips."""
    deltas = _values(statistic, groups, columns, resamples, seed)
    if not len(deltas):
        return None
    return Difference(value_of_all(statistic, len(groups), columns), *_central(deltas, level), _p(deltas))


def value_of_all(statistic: Statistic, clips: int, columns: NDArray[np.float64] | None = None) -> float:
    """The figure itself: every clip once."""
    once = np.ones((1, clips)) if columns is None else columns.sum(axis=0, keepdims=True)
    return float(statistic(once)[0])


def _values(
    statistic: Statistic, groups: Groups, columns: NDArray[np.float64] | None, resamples: int, seed: int
) -> NDArray[np.float64]:
    """The figure of every resample in which it is defined."""
    member = _members(groups)
    count = int(member.max(initial=-1)) + 1
    if count < 2 or not np.isfinite(value_of_all(statistic, len(member), columns)):
        return np.zeros(0)
    if columns is None:  # small blocks: what sorts and sums along clips should stay in the processor's cache
        blocks = _counts(count, resamples, seed, at_once=max(1, _BLOCK // 16 // len(member)))
        values = np.concatenate([statistic(counts[:, member]) for counts in blocks])
    else:
        values = statistic(_resampled(_sums(groups, *columns.T), resamples, seed))
    return values[np.isfinite(values)]


def _p(deltas: NDArray[np.float64]) -> float:
    """Two-sided: how often the resampled difference has the other sign."""
    tail = min((deltas <= 0).sum(), (deltas >= 0).sum())
    # One is added to both: a p of exactly 0 is not something a finite sample can show.
    return min(1.0, 2 * (int(tail) + 1) / (len(deltas) + 1))


def _members(groups: Groups) -> NDArray[np.intp]:
    """The number of each clip's group."""
    return np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)[1]


def _sums(groups: Groups, *columns: ArrayLike) -> NDArray[np.float64]:
    """`(group, column)` sums."""
    member = _members(groups)
    sums = [np.bincount(member, np.asarray(column, float)) for column in columns]
    return np.stack(sums, axis=1).astype(np.float64)


def _resampled(table: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """The `(resample, column)` sums of the groups drawn."""
    if len(table) > _MANY:
        alike, times = np.unique(table, axis=0, return_counts=True)
        if 2 * len(alike) < len(table):
            return _resampled_alike(alike, times, resamples, seed)
    return np.concatenate([counts @ table for counts in _counts(len(table), resamples, seed)])


def _resampled_alike(
    alike: NDArray[np.float64], times: NDArray[np.intp], resamples: int, seed: int
) -> NDArray[np.float64]:
    """The same of groups of which many have equal sums: how often each kind is drawn is multinomial.

    That is the distribution of drawing the groups one by one, at the price of the kinds: 200,000 utterances
    have some hundred pairs of errors and words.
    """
    generator = np.random.default_rng(seed)
    share, size = times / times.sum(), int(times.sum())
    step = max(1, _BLOCK // len(alike))
    return np.concatenate(
        [
            generator.multinomial(size, share, min(step, resamples - start)) @ alike
            for start in range(0, resamples, step)
        ]
    )


def _counts(
    groups: int, resamples: int, seed: int, at_once: int | None = None
) -> Iterator[NDArray[np.float64]]:
    """The count matrix, some rows at a time."""
    generator = np.random.default_rng(seed)
    step = at_once or max(1, _BLOCK // groups)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(groups, size=(rows, groups))
        cells = (drawn + np.arange(rows)[:, None] * groups).ravel()
        yield np.bincount(cells, minlength=rows * groups).reshape(rows, groups).astype(float)


def _at_least_one(words: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(words, 1.0)  # a resample may hold only wordless files


def _central(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
