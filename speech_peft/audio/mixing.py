"""Channels made one, also where they cancel each other: one wire crossed, and the mean is silence."""

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

_CANCELLED = 0.01  # of the energy that a mean of channels has that know nothing of each other
_LOUDER = 1.25  # times the energy of the channel that was taken before: only then another is taken


class Mixer:
    """The mean of the channels, block by block; where it loses nearly all energy, the louder channel."""

    def __init__(self) -> None:
        self._lead = 0
        self.cancelled = False
        """Whether that happened."""

    def __call__(self, block: Float32[ndarray, "n c"]) -> Float32[ndarray, " n"]:
        channels = block.shape[1]
        if channels == 1:
            return block[:, 0]
        mono = block.mean(axis=1, dtype=np.float32)
        energies = np.einsum("nc,nc->c", block, block, dtype=np.float64)
        independent = energies.sum() / channels**2
        if float(np.dot(mono, mono)) >= _CANCELLED * independent:
            return mono
        loudest = int(energies.argmax())
        if energies[loudest] > _LOUDER * energies[self._lead]:
            self._lead = loudest
        self.cancelled = True
        return block[:, self._lead]

    @property
    def notes(self) -> tuple[str, ...]:
        return (
            (f"its channels cancel each other; channel {self._lead + 1} was heard",) if self.cancelled else ()
        )
