"""Several readings of one stretch of speech, and which of them is to be believed."""

from collections.abc import Sequence

from .decoded import Decoded


def surest(readings: Sequence[Decoded], there: Sequence[bool]) -> int:
    """The place of the reading whose tokens are likeliest in the mean, of those that are `there`.

    One without words, or that runs in circles, is taken where there is no other: both are likely texts.
    """

    def key(place: int) -> tuple[bool, bool, float]:
        one = readings[place]
        return bool(there[place]), bool(one.text) and not one.loops, one.avg_logprob

    return max(range(len(readings)), key=key)
