"""Ratios of sums over clips, such as word error rates and what they gain on each other, with intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from speech_peft.metrics import bootstrap


def ratio(
    columns: Mapping[str, Sequence[float]], above: Mapping[str, float], below: Mapping[str, float]
) -> list[float] | None:
    """Of the sums of columns, each so many times: the ratio, and its interval of 95 % over clips drawn again.

    None where it is undefined.

    >>> ratio({"stock": [1, 2], "words": [9, 8]}, {"stock": 1}, {"words": 1})[0]
    0.1765
    """
    table = np.column_stack([np.asarray(values, float) for values in columns.values()])
    times = [np.array([given.get(name, 0.0) for name in columns]) for given in (above, below)]

    def of(drawn: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (drawn @ times[0]) / (drawn @ times[1])

    found = bootstrap.interval_of(of, range(len(table)), table)
    if found is None:
        return None
    return [
        round(float(x), 4) for x in (bootstrap.value_of_all(of, len(table), table), found.low, found.high)
    ]


def mean(values: Sequence[float]) -> list[float] | None:
    """The mean of something that each clip has, and its interval."""
    return ratio({"value": values, "clips": [1.0] * len(values)}, {"value": 1}, {"clips": 1})
