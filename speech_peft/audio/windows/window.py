"""A piece of a recording as a model hears it, and where in the recording each moment of it was."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from .silero import FRAME

SAMPLE_RATE = 16_000
Samples = Float32[ndarray, " s"]


@dataclass(frozen=True)
class Window:
    """A stretch of a recording that holds speech, or several one after the other without what lay between.

    >>> window = Window(5.0, np.zeros(32_000, np.float32), joints=((16_000, 65.0),))
    >>> window.at(0.5), window.at(1.5), window.end
    (5.5, 65.5, 66.0)
    """

    start: float
    """Seconds from the start of the recording."""
    samples: Samples
    scores: Float32[ndarray, " n"] = field(default_factory=lambda: np.zeros(0, np.float32), repr=False)
    """The detector's, one a frame of `FRAME` samples; empty where none was asked."""
    joints: tuple[tuple[int, float], ...] = ()
    """Where each further stretch begins: its first sample in the window, its seconds in the recording."""
    views: Float32[ndarray, "n s"] = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    """What each microphone heard, of which `samples` are the mean; none where they are not told apart."""

    @property
    def heard(self) -> Sequence[Samples]:
        """What a model hears: each microphone, or else the window's samples."""
        return list(self.views) if len(self.views) > 1 else [self.samples]

    @property
    def first_heard(self) -> int:
        """The place of the first microphone that recorded anything."""
        return next((place for place, view in enumerate(self.heard) if view.any()), 0)

    @property
    def seconds(self) -> float:
        """Of sound; what was left out between stretches does not count."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def end(self) -> float:
        """Seconds from the start of the recording."""
        return self._at(self.seconds, len(self.joints))

    def at(self, seconds: float) -> float:
        """Where in the recording a moment of the window is; of a joint, where what follows it begins."""
        return self._at(seconds, bisect_right(self._firsts, seconds * SAMPLE_RATE))

    def of(self, seconds: float) -> float:
        """The other way round: the moment of the window that a moment of the recording has in it."""
        number = bisect_right([start for _, start in self.joints], seconds)
        sample, start = ((0, self.start), *self.joints)[number]
        return sample / SAMPLE_RATE + seconds - start

    def placed(self, start: float, end: float) -> tuple[float, float]:
        """A span of the window in the recording; over a joint, the longer side of it alone."""
        edges = [start, *(one / SAMPLE_RATE for one in self._firsts if start < one / SAMPLE_RATE < end), end]
        first, last = max(pairwise(edges), key=lambda side: side[1] - side[0])
        number = bisect_right(self._firsts, (first + last) / 2 * SAMPLE_RATE)
        return self._at(first, number), self._at(last, number)

    def part(self, first: int, last: int | None = None) -> "Window":
        """From one sample of it to another; its scores are those of the nearest frames."""
        last = len(self.samples) if last is None else last
        inside = slice(bisect_right(self._firsts, first), bisect_left(self._firsts, last))
        scores = self.scores[round(first / FRAME) : round(last / FRAME) if last < len(self.samples) else None]
        joints = tuple((sample - first, start) for sample, start in self.joints[inside])
        start = self._at(first / SAMPLE_RATE, inside.start)
        return Window(start, self.samples[first:last], scores, joints, self.views[:, first:last])

    def followed_by(self, other: "Window") -> "Window":
        """Both as one, without what lies between."""
        size = len(self.samples)
        touching = abs(other.start - self.end) * SAMPLE_RATE < 1
        return replace(
            self,
            samples=np.concatenate([self.samples, other.samples]),
            scores=np.concatenate([self.scores, other.scores]),
            joints=(
                *self.joints,
                *(() if touching else ((size, other.start),)),
                *((size + sample, start) for sample, start in other.joints),
            ),
            views=np.concatenate([self.views, other.views], 1),
        )

    @property
    def _firsts(self) -> list[int]:
        return [sample for sample, _ in self.joints]

    def _at(self, seconds: float, number: int) -> float:
        """By the stretch of this number."""
        sample, start = ((0, self.start), *self.joints)[number]
        return start + seconds - sample / SAMPLE_RATE
