"""Clips that follow each other in a manifest, joined to windows as long recordings are cut.

A model that has only heard single sentences loses words where a window holds several. Which clips are joined,
and how long they pause between, is drawn anew in every epoch; each clip is heard once in each.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...audio.batch import DurationBatchSampler
from ...recipe.parts import JoinConfig

_JOIN = 3  # apart from what else is drawn for (seed, epoch)


@dataclass(frozen=True)
class Window:
    """Clips `first` to `last` (which is in it), and the seconds of silence after each but the last."""

    first: int
    last: int
    pauses: tuple[float, ...] = ()

    @property
    def clips(self) -> range:
        return range(self.first, self.last + 1)


class Windows:
    """The windows of each epoch, a function of (seed, epoch); `longest` is in seconds, of joined clips."""

    def __init__(
        self,
        seconds: Sequence[float] | np.ndarray,
        config: JoinConfig,
        seed: int,
        longest: float = math.inf,
    ):
        self.clips, self.config, self.seed = np.asarray(seconds, np.float64), config, seed
        self.longest = longest
        self._latest: tuple[int, tuple[Window, ...]] | None = None

    def of(self, epoch: int) -> tuple[Window, ...]:
        """The windows of an epoch, in the manifest's order."""
        if self._latest is None or self._latest[0] != epoch:
            self._latest = epoch, tuple(self._cut(np.random.default_rng((self.seed, epoch, _JOIN))))
        return self._latest[1]

    def seconds(self, epoch: int) -> np.ndarray:
        """How long each window of an epoch is."""
        whole = np.concatenate([[0.0], np.cumsum(self.clips)])
        return np.array([whole[w.last + 1] - whole[w.first] + sum(w.pauses) for w in self.of(epoch)])

    def _cut(self, generator: np.random.Generator) -> Iterator[Window]:
        """Windows and single clips in turn, so that the windows hold their share of the audio."""
        at, joined, heard = 0, 0.0, float(generator.uniform(0, self.config.seconds[1]))
        while at < len(self.clips):
            wanted = min(float(generator.uniform(*self.config.seconds)), self.longest)
            window = Window(at, at)
            if joined <= self.config.share * heard:
                window = self._grown(at, wanted, generator)
            length = float(self.clips[window.first : window.last + 1].sum())
            joined, heard = joined + length * (window.last > window.first), heard + length
            at = window.last + 1
            yield window

    def _grown(self, first: int, wanted: float, generator: np.random.Generator) -> Window:
        """From a clip on, as many as `wanted` seconds hold; one at least."""
        last, length, pauses = first, self.clips[first], []
        while last + 1 < len(self.clips):
            pause = float(generator.uniform(*self.config.pause_seconds))
            length += pause + self.clips[last + 1]
            if length > wanted:
                break
            last += 1
            pauses.append(pause)
        return Window(first, last, tuple(pauses))


class JoinedBatches:
    """Batches of windows: `DurationBatchSampler` over those of each epoch."""

    def __init__(self, windows: Windows, seconds_per_batch: float, seed: int, rank: int, world: int):
        self.windows, self.seconds_per_batch, self.seed = windows, seconds_per_batch, seed
        self.rank, self.world, self.epoch = rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        sampler = DurationBatchSampler(
            self.windows.seconds(self.epoch), self.seconds_per_batch, self.seed, self.rank, self.world
        )
        sampler.set_epoch(self.epoch)
        yield from sampler
