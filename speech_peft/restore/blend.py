"""The restored signal and the one that came, mixed: at what strength, how loud, and never louder in a pause.

Both lie on tapes at one rate. One pass gathers the energies of short frames; after that any strength can be
judged without another pass and read block by block.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from .tape import Frames, Tape

FRAME_SECONDS = 0.032
BOOST_DB = 12.0
"""How much louder the speech may be made to keep the level of a recording that lost its noise."""
_AT_ONCE = 1000  # frames in memory: half a minute
_BRIDGE, _SKIRT = 0.5, 0.1  # seconds: a hole in speech is speech; so is what lies just beside it


def speech_frames(
    scores: Float[ndarray, " v"], frames: int, seconds: float, silent: Bool[ndarray, " f"]
) -> Bool[ndarray, " f"]:
    """Which of `frames` frames, `seconds` long each, are speech by the scores of a detector (32 ms each).

    A short hole between speech counts as speech: it may be a lost packet, and filling it is the task. What
    lies just beside speech counts too, unless it is digital silence.
    """
    speech = closed(scores > 0.5, round(_BRIDGE / FRAME_SECONDS))
    beside = dilated(speech, round(_SKIRT / FRAME_SECONDS))
    if not len(speech):
        return np.zeros(frames, bool)
    at = np.minimum(((np.arange(frames) + 0.5) * seconds / FRAME_SECONDS).astype(int), len(speech) - 1)
    return speech[at] | (beside[at] & ~silent)


def closed(flags: Bool[ndarray, " v"], width: int) -> Bool[ndarray, " v"]:
    """The flags with holes of up to `width` filled that lie between two that are set."""
    found = flags.copy()
    at = np.flatnonzero(flags)
    for first, last in pairwise(at.tolist()):
        if 1 < last - first <= width + 1:
            found[first:last] = True
    return found


def dilated(flags: Bool[ndarray, " v"], width: int) -> Bool[ndarray, " v"]:
    """The flags with `width` neighbours on both sides."""
    if not len(flags):
        return flags
    return np.convolve(flags, np.ones(2 * width + 1), "full")[width : width + len(flags)] > 0.5


@dataclass(frozen=True, eq=False)
class Blend:
    """One strength, and the gains that go with it."""

    strength: float
    gain: Float[ndarray, " c"]
    """Of each channel: keeps the level of the recording."""
    caps: Float[ndarray, "f+1 c"]
    """At the borders of frames: what keeps the rest from getting louder than it came."""
    level_db: float | None
    """Change of level, the largest of all channels; None where the recording is silent."""


class Mixture:
    """What came and what a model made of it, ready to be mixed at any strength."""

    def __init__(self, dry: Tape, wet: Tape, length: int, rate: int, scores: Float[ndarray, " v"]):
        """`scores` are a detector's of speech, one for each 32 ms."""
        self.dry, self.wet, self.length, self.rate = dry, wet, length, rate
        self.frame = max(1, round(FRAME_SECONDS * rate))
        self._energies = energies(dry, wet, length, self.frame)
        came = self._energies[0]
        self.speech = speech_frames(scores, len(came), self.frame / rate, (came == 0).all(1))

    @cached_property
    def came(self) -> Float[ndarray, " c"]:
        """Energy of each channel as it came."""
        return self._energies[0].sum(0, dtype=np.float64)

    def at(self, strength: float) -> Blend:
        """The mix at a strength in 0..1: its level is that of the recording where that can be had."""
        dry, wet, cross = self._energies
        channels = dry.shape[1]
        if strength == 0:
            return Blend(0.0, np.ones(channels), np.ones((len(dry) + 1, channels)), self._level(dry))
        mixed = np.maximum(
            strength**2 * wet + (1 - strength) ** 2 * dry + 2 * strength * (1 - strength) * cross, 0
        )
        ceiling = np.where(self.speech[:, None], np.inf, dry)
        gain = self._gain(mixed, ceiling)
        loud = gain**2 * mixed
        frames = np.sqrt(np.minimum(1.0, ceiling / np.maximum(loud, 1e-30)))
        border = np.pad(frames, ((1, 1), (0, 0)), mode="edge")
        caps = np.minimum(
            border[:-1], border[1:]
        )  # a line between two borders is then below both frames' caps
        mean = (caps[:-1] ** 2 + caps[:-1] * caps[1:] + caps[1:] ** 2) / 3
        return Blend(strength, gain, caps, self._level(loud * mean))

    def _gain(self, mixed: Float[ndarray, "f c"], ceiling: Float[ndarray, "f c"]) -> Float[ndarray, " c"]:
        """The gain at which the energy is that of the recording, by halving; at most `BOOST_DB`."""
        low, high = np.zeros(mixed.shape[1]), np.full(mixed.shape[1], 10 ** (BOOST_DB / 20))
        for _ in range(30):
            middle = (low + high) / 2
            over = np.minimum(middle**2 * mixed, ceiling).sum(0, dtype=np.float64) > self.came
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        return high

    def _level(self, made: Float[ndarray, "f c"]) -> float | None:
        heard = self.came > 0
        if not heard.any():
            return None
        change = 10 * np.log10(np.maximum(made.sum(0, dtype=np.float64)[heard], 1e-30) / self.came[heard])
        return float(change[np.argmax(np.abs(change))])

    def read(self, blend: Blend, start: int, count: int) -> Frames:
        """Samples of the mix, shape (count, c)."""
        dry = self.dry.read(start, count)
        if blend.strength == 0:
            return dry
        wet = self.wet.read(start, count)
        at = (start + np.arange(count) + 0.5) / self.frame
        left = np.minimum(at.astype(int), len(blend.caps) - 2)
        share = np.clip(at - left, 0, 1)[:, None].astype(np.float32)
        caps = blend.caps.astype(np.float32)[left.min() : left.max() + 2]
        left -= left.min()
        gain = (caps[left] * (1 - share) + caps[left + 1] * share) * blend.gain.astype(np.float32)
        strength = np.float32(blend.strength)
        return gain * (strength * wet + (1 - strength) * dry)

    @property
    def block(self) -> int:
        """Samples to read at a time."""
        return self.frame * _AT_ONCE


def energies(a: Tape, b: Tape, length: int, frame: int) -> Float[ndarray, "3 f c"]:
    """Of frames: the energy of both tapes, and what they have in common."""
    found = []
    for (_, one), (_, other) in zip(
        a.blocks(frame * _AT_ONCE, length), b.blocks(frame * _AT_ONCE, length), strict=True
    ):
        starts = np.arange(0, len(one), frame)
        found.append([np.add.reduceat(x * y, starts) for x, y in ((one, one), (other, other), (one, other))])
    return np.concatenate(found, axis=1) if found else np.zeros((3, 0, a.channels), np.float32)
