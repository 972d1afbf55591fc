"""How like a clip is to the clips of cards, in one measure that all cards of a catalogue share.

    d(x, card)^2 = (x - mean)' W^-1 (x - mean) / k,     W = V^(1/2) (rho 1 + (1 - rho) Q' Q) V^(1/2)

V is how much clips of one card differ along each number, Q along what directions most (those of all cards),
on the mean over the cards. What differs within cards anyway, such as who talks and what is said, so counts
less than what tells cards apart. By d cards are compared; a clip is outside where d is more than so many
times what a card's own clips have on the mean.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from .card import Sound

_RHO = 0.3  # of what differs, the share that is taken to lie along no direction: a few clips show few


class Likeness:
    """The measure of some cards' sounds, which are of one width; raises ValueError where there are none."""

    def __init__(self, sounds: Sequence[Sound]):
        if not sounds:
            raise ValueError("no sounds, so nothing to measure by")
        self.width = len(sounds[0].mean)
        self.deviation = np.sqrt(np.maximum(np.mean([s.variance for s in sounds], 0), 1e-8))
        every = np.concatenate([_directions(sound) for sound in sounds]) / self.deviation
        size, axes = np.linalg.eigh(every.T @ every / len(sounds))
        kept = size > 1e-9 * max(1.0, size[-1])
        self.axes = axes[:, kept]
        self.more = 1 / ((1 - _RHO) * size[kept] + _RHO) - 1 / _RHO

    def between(self, sound: Float[ndarray, " k"], own: Sound) -> float:
        """d of a clip and a card."""
        return float(np.sqrt(self._squared((sound - np.asarray(own.mean)) / self.deviation)))

    def within(self, own: Sound) -> float:
        """d of other clips that a card is for: the root of the mean square, as its own clips let expect."""
        along = _directions(own)
        rest = np.maximum(np.asarray(own.variance) - (along**2).sum(0), 0.0) / self.deviation**2
        shown = self._squared(along / self.deviation).sum() if len(along) else 0.0
        few = (own.clips + 1) / max(1, own.clips - 1)  # the mean is theirs, and lies amid them
        return float(np.sqrt(max(few * (shown + rest.mean() / _RHO), 1e-12)))

    def _squared(self, gaps: Float[ndarray, "... k"]) -> Float[ndarray, "..."]:
        return ((gaps**2).sum(-1) / _RHO + ((gaps @ self.axes) ** 2 @ self.more)) / self.width


def _directions(sound: Sound) -> Float[ndarray, "r k"]:
    return np.asarray(sound.directions, dtype=float).reshape(-1, len(sound.mean))
