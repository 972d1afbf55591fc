"""How many places a text is given before it is known how long it is."""

from collections.abc import Sequence

from .masked import bucket

PER_SECOND = 5.0
"""Tokens of fast speech; who is faster runs into the end of the bucket, and gets twice as many."""
SPARE = 6


def by_duration(seconds: Sequence[float], most: int, per_second: float = PER_SECOND) -> list[int]:
    """A bucket for each clip, at most `most` places.

    >>> by_duration([1.0, 3.0, 30.0], 224)
    [16, 32, 160]
    """
    return [min(bucket(int(per_second * s) + SPARE), most) for s in seconds]
