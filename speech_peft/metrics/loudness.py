"""Loudness as ITU-R BS.1770-4 and EBU R 128 define it, in LUFS: K-weighted, gated mean power of mono audio.

    L = -0.691 + 10 log10 mean(z^2),    z = x after a high shelf (the head) and a high pass (low tones)

Blocks of 0.4 s, every 0.1 s; those below -70 LUFS, then those 10 LU below the rest, do not count. A recording
shorter than a block is one block. Pairs of players are matched by it: louder always sounds better.
"""

import math

import numpy as np
from jaxtyping import Float64
from scipy.signal import lfilter

from ..audio.io import Samples

BLOCK_SECONDS, HOP_SECONDS = 0.4, 0.1
SILENCE = -70.0
"""LUFS; what is softer has no loudness to match."""
_OFFSET, _RELATIVE = -0.691, -10.0
_TINY = 1e-15


def loudness(samples: Samples, sample_rate: int) -> float | None:
    """Integrated loudness in LUFS; None of what is silent throughout.

    >>> tone = np.sin(2 * np.pi * 997 * np.arange(48_000) / 48_000).astype(np.float32)
    >>> round(loudness(tone, 48_000), 1)
    -3.0
    """
    powers = _block_powers(_weighted(samples, sample_rate), sample_rate)
    heard = powers[_lufs(powers) > SILENCE]
    if not len(heard):
        return None
    heard = heard[_lufs(heard) > _lufs(heard.mean()) + _RELATIVE]
    return float(_lufs(heard.mean()))


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


def _weighted(samples: Samples, sample_rate: int) -> Float64[np.ndarray, " s"]:
    x = np.asarray(samples, np.float64)
    for b, a in (_shelf(sample_rate), _high_pass(sample_rate)):
        x = np.asarray(lfilter(b, a, x))
    return x


def _shelf(sample_rate: int) -> tuple[list[float], list[float]]:
    """+4 dB above 1.7 kHz. The standard gives coefficients for 48 kHz; these are their analogue prototype."""
    gain, q, frequency = 3.999843853973347, 0.7071752369554196, 1681.974450955533
    k = math.tan(math.pi * frequency / sample_rate)
    high = 10 ** (gain / 20)
    middle = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    b = [(high + middle * k / q + k * k) / a0, 2 * (k * k - high) / a0, (high - middle * k / q + k * k) / a0]
    return b, [1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]


def _high_pass(sample_rate: int) -> tuple[list[float], list[float]]:
    """Second order at 38 Hz; the standard leaves its numerator unscaled."""
    q, frequency = 0.5003270373238773, 38.13547087602444
    k = math.tan(math.pi * frequency / sample_rate)
    a0 = 1 + k / q + k * k
    return [1.0, -2.0, 1.0], [1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]


def _block_powers(x: Float64[np.ndarray, " s"], sample_rate: int) -> Float64[np.ndarray, " blocks"]:
    size, hop = round(BLOCK_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    if not len(x):
        return np.zeros(0)
    if len(x) <= size:
        return np.array([np.mean(x * x)])
    summed = np.concatenate([[0.0], np.cumsum(x * x)])
    starts = np.arange(0, len(x) - size + 1, hop)
    return (summed[starts + size] - summed[starts]) / size


def _lufs(power: np.ndarray) -> np.ndarray:
    return _OFFSET + 10 * np.log10(np.maximum(power, _TINY))
