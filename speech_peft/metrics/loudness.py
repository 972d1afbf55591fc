"""Loudness as ITU-R BS.1770-4 and EBU R 128 define it, in LUFS, of mono audio; pyloudnorm measures it.

Its filters `DeMan` are the standard's own at every rate; those that it takes by default are near them, as are
torchaudio's, which clip as well. Pairs of players are matched by loudness: louder always sounds better.
"""

import math

import numpy as np

from ..audio.io import Samples

BLOCK_SECONDS, HOP_SECONDS = 0.4, 0.1
_TINY = 1e-15


def loudness(samples: Samples, sample_rate: int) -> float | None:
    """Integrated loudness in LUFS; None of what is silent throughout (below -70 LUFS).

    A recording shorter than a block of 0.4 s is one block; what is left behind the last hop does not count.

    >>> tone = np.sin(2 * np.pi * 997 * np.arange(48_000) / 48_000).astype(np.float32)
    >>> round(loudness(tone, 48_000), 1)
    -3.0
    """
    from pyloudnorm import Meter  # here: it needs all of scipy.signal

    block, hop = round(BLOCK_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    if not len(samples):
        return None
    if len(samples) > block:  # it would weigh a block that is begun as if it were whole
        samples = samples[: block + (len(samples) - block) // hop * hop]
    meter = Meter(sample_rate, "DeMan", block_size=min(BLOCK_SECONDS, len(samples) / sample_rate))
    level = float(meter.integrated_loudness(np.asarray(samples, np.float64)))
    return level if math.isfinite(level) else None


def matched(samples: Samples, sample_rate: int, wanted: float | None) -> Samples:
    """The samples at `wanted` LUFS, or softer where they would exceed full scale; silence as it is."""
    own = loudness(samples, sample_rate)
    if own is None or wanted is None:
        return samples
    gain = min(10 ** ((wanted - own) / 20), 1 / max(float(np.abs(samples).max()), _TINY))
    return (samples * np.float32(gain)).astype(np.float32)


def common(own: list[tuple[Samples, int]], ceiling: float = -23.0) -> float | None:
    """The loudest level at most `ceiling` LUFS that every one of these recordings can have unclipped."""
    reachable = [
        level - 20 * math.log10(max(float(np.abs(samples).max()), _TINY))
        for samples, rate in own
        if (level := loudness(samples, rate)) is not None
    ]
    return min([*reachable, ceiling]) if reachable else None
