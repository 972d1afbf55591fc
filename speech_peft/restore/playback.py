"""Clips of a recording for the guard: mono, 16 kHz, and spread over where there is speech."""

from itertools import pairwise

import numpy as np
import soxr

from ..audio.mixing import Mixer
from .blend import Blend, Mixture
from .seams import RATE
from .witnesses import CLIP_SECONDS, Samples

_CLIP = 10.0  # seconds of each sample of a recording too long to be compared whole
_LEAST = 0.3  # share of speech in such a sample


def spread(mixture: Mixture, seconds: float) -> list[tuple[int, int]]:
    """Stretches of up to `seconds` in sum, as first and last sample; none where there is no speech.

    A recording that is no longer than that is taken whole.
    """
    if not mixture.speech.any():
        return []
    if mixture.length <= seconds * mixture.rate:
        size = round(CLIP_SECONDS * mixture.rate)
        count = -(-mixture.length // size)
        borders = np.linspace(0, mixture.length, count + 1).round().astype(int).tolist()
        return list(pairwise(borders))
    size = round(_CLIP * mixture.rate)
    frames = max(1, size // mixture.frame)
    shares = [
        (start * mixture.frame, float(mixture.speech[start : start + frames].mean()))
        for start in range(0, max(1, len(mixture.speech) - frames + 1), frames)
    ]
    talking = [start for start, share in shares if share >= _LEAST] or [max(shares, key=lambda s: s[1])[0]]
    wanted = max(1, min(len(talking), int(seconds / _CLIP)))
    chosen = [talking[i] for i in np.linspace(0, len(talking) - 1, wanted).round().astype(int)]
    return [(start, min(start + size, mixture.length)) for start in chosen]


def clips_of(mixture: Mixture, blend: Blend, spans: list[tuple[int, int]]) -> list[Samples]:
    """The channels of a mix as one in each stretch, at 16 kHz."""
    found, mono_of = [], Mixer()
    for first, last in spans:
        mono = mono_of(mixture.read(blend, first, last - first))
        found.append(mono if mixture.rate == RATE else soxr.resample(mono, mixture.rate, RATE))
    return [np.ascontiguousarray(clip, np.float32) for clip in found]
