"""When sounds begin and end, and how well the beginnings of one recording are those of another.

An onset is where power, band by band on the mel scale, rises most: the spectral flux of Boeck and Widmer
(2013, DAFx), whose largest of neighbouring bands keeps vibrato out. Two recordings are compared by the F1 of
their onsets, each matched to one of the other at most 50 ms away, which is how MIREX counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ..audio.io import Samples
from ..audio.mel import slaney_filters
from .metric import Figure, Heard, Metric, NotMeasured

TOLERANCE = 0.05
"""Seconds that an onset may be off."""
_HOP, _FFT, _BANDS = 0.01, 0.032, 40  # seconds, seconds, on the mel scale
_RANGE = 50.0  # dB below the loudest band of a recording: what is softer is silence
_RISE = 3.0  # dB, the mean over bands of what an onset adds
_LAG = 3  # frames: an attack of 30 ms is seen whole
_APART = 8  # frames between two onsets
_FALL = 20.0  # dB below its peak: there a sound has ended
_SHORTEST = 0.04  # seconds


@dataclass(frozen=True)
class Match:
    """How many onsets were to be found, how many were, and how many of these are right."""

    wanted: int = 0
    found: int = 0
    right: int = 0

    def __add__(self, other: "Match") -> "Match":
        return Match(self.wanted + other.wanted, self.found + other.found, self.right + other.right)

    @property
    def f1(self) -> float:
        """1 where there was nothing to find and nothing was."""
        total = self.wanted + self.found
        return 2 * self.right / total if total else 1.0


def matched(wanted: Sequence[float], found: Sequence[float], tolerance: float = TOLERANCE) -> Match:
    """The most pairs that can be made of onsets at most so many seconds apart, each in one pair.

    >>> matched([0.5, 1.0], [0.52, 0.54, 1.2]).right
    1
    """
    a, b, right = sorted(wanted), sorted(found), 0
    i = j = 0
    # On a line, earliest with earliest is the best that can be done: what either could have is no later.
    while i < len(a) and j < len(b):
        if abs(a[i] - b[j]) <= tolerance + 1e-9:
            i, j, right = i + 1, j + 1, right + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return Match(len(a), len(b), right)


def onsets(samples: Samples, sample_rate: int) -> Float[np.ndarray, " n"]:
    """Seconds at which a sound begins."""
    return _peaks(_bands(samples, sample_rate)) * _HOP


def intervals(samples: Samples, sample_rate: int) -> list[tuple[float, float]]:
    """Of every sound the seconds from its onset to where it has died away, or the next one begins."""
    bands = _bands(samples, sample_rate)
    starts = _peaks(bands)
    if not len(starts):
        return []
    power = 10 * np.log10((10 ** (bands / 10)).sum(0))
    found = []
    for start, following in zip(starts, [*starts[1:], len(power)], strict=True):
        level = power[start : max(start + 1, following - _LAG)]  # a window reaches into the next sound
        peak = int(level.argmax())
        soft = np.flatnonzero(level[peak:] < level[peak] - _FALL)
        end = start + peak + int(soft[0]) if len(soft) else following
        found.append((start * _HOP, max(end * _HOP, start * _HOP + _SHORTEST)))
    return [(float(a), float(min(b, len(samples) / sample_rate))) for a, b in found]


class OnsetF1(Metric):
    """Whether sounds begin where those of the reference do, to within 50 ms."""

    name = "onsets"
    figures: ClassVar = {"onset_f1": Figure("onset F1", "", "higher")}
    needs = "reference"
    opt_in = True  # of sounds with beginnings: speech has one in every syllable

    def measure(self, heard: Heard) -> dict[str, float]:
        clean, output, rate = heard.against_reference()
        found = matched(*(onsets(one, rate).tolist() for one in (clean, output)))
        if not found.wanted:
            raise NotMeasured("nothing begins in the reference")
        return {"onset_f1": found.f1}


def _bands(samples: Samples, sample_rate: int) -> Float[np.ndarray, "m t"]:
    """dB of each band and frame, frames centred every 10 ms; what is too soft to be heard is all alike."""
    hop, size = round(_HOP * sample_rate), round(_FFT * sample_rate)
    around = np.pad(np.asarray(samples, np.float64), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(around, size)[: len(samples) : hop]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2
    power = slaney_filters(sample_rate, size, _BANDS) @ spectrum.T
    loudest = max(float(power.max(initial=0.0)), 1e-10)
    return 10 * np.log10(np.maximum(power, loudest * 10 ** (-_RANGE / 10)))


def _peaks(bands: Float[np.ndarray, "m t"]) -> np.ndarray:
    """The frames at which most is added."""
    from scipy.ndimage import maximum_filter1d
    from scipy.signal import find_peaks

    silence = np.full((len(bands), _LAG), bands.max(initial=-100.0) - _RANGE)
    before = maximum_filter1d(np.concatenate([silence, bands], 1), 3, axis=0)[:, : bands.shape[1]]
    flux = np.maximum(bands - before, 0).mean(0)
    # Nothing is added before the first frame, nor behind the last: a peak may lie at either end.
    found, _ = find_peaks(np.pad(flux, 1), height=_RISE, distance=_APART, prominence=_RISE / 2)
    return np.maximum(found - 1 - _LAG // 2, 0)
