"""Noise: made in a colour or cut out of a recording, and mixed in at a level."""

from pathlib import Path

import numpy as np
from numpy.random import Generator

from .. import io
from ..io import Samples

_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}
_HARMONICS = 8
_INAUDIBLE_HZ = 20.0  # below it the level stays: where nothing is heard, red noise has most of its power


def colored(color: str, length: int, sample_rate: int, generator: Generator) -> Samples:
    """`length` samples: white, pink (power falls as 1/f), brown (as 1/f²), or the hum of either mains."""
    if color == "hum":
        mains, time = (50.0, 60.0)[int(generator.integers(2))], np.arange(length) / sample_rate
        phases = generator.uniform(0, 2 * np.pi, _HARMONICS)
        waves = (np.sin(2 * np.pi * mains * n * time + phase) / n for n, phase in enumerate(phases, 1))
        return np.sum(list(waves), axis=0).astype(np.float32)
    size = power_of_two(length)
    spectrum = np.fft.rfft(generator.standard_normal(size))
    frequency = np.fft.rfftfreq(size, 1 / sample_rate)
    spectrum *= np.maximum(frequency, _INAUDIBLE_HZ) ** -_SLOPES[color]
    spectrum[0] = 0.0
    return np.fft.irfft(spectrum, size)[:length].astype(np.float32)


def recorded(path: Path, length: int, sample_rate: int, generator: Generator) -> Samples:
    """`length` samples of a recording from a random point, looped if it is shorter.

    Raises AudioError where it cannot be read.
    """
    seconds, wanted = io.info(path).seconds, length / sample_rate
    start = float(generator.uniform(0.0, max(0.0, seconds - wanted)))
    return np.resize(io.load(path, sample_rate, start, wanted + 0.01).samples, length)


def mix(x: Samples, noise: Samples, snr: float) -> Samples:
    """`x` with the noise `snr` dB below it; both softer where the sum would exceed full scale."""
    speech, level = rms(x), rms(noise)
    if not speech or not level:
        return x
    mixed = x + noise * np.float32(speech / level * 10 ** (-snr / 20))
    return within_full_scale(mixed)


def within_full_scale(x: np.ndarray) -> Samples:
    """As it is, or softer where its peak would exceed full scale."""
    return (x / max(1.0, float(np.abs(x).max(initial=0.0)))).astype(np.float32)


def rms(x: Samples) -> float:
    """Root of the mean power."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def power_of_two(length: int) -> int:
    """The next one, for transforms that are quick and the same on every machine."""
    return 1 << (length - 1).bit_length()
