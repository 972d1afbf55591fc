"""Slaney's filters on the mel scale."""

from functools import cache

import numpy as np
from jaxtyping import Float


@cache
def slaney_filters(sample_rate: int, size: int, bands: int) -> Float[np.ndarray, "m f"]:
    """Triangles over the bins of a spectrum of `size` samples, of one area each, from 0 Hz to half the rate.

    In double precision, and read only: everybody gets the same.

    >>> slaney_filters(16_000, 512, 40).shape
    (40, 257)
    """
    from transformers.audio_utils import mel_filter_bank

    found = mel_filter_bank(
        size // 2 + 1, bands, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="slaney"
    )
    found.flags.writeable = False
    return found.T
