"""At which moments something is to sound: intervals in seconds, as one number for each frame."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import ConfigError

Interval = tuple[float, float]
"""Seconds at which a sound begins and ends."""
_ROUNDING = 1e-6  # of a frame: 0.3 s at 50 frames a second is frame 15, whatever floats say


def moments_of(
    intervals: Sequence[Sequence[Interval]], frames: int, frame_rate: float
) -> Float[Tensor, "b t"]:
    """+1 in every frame that a row's intervals touch, -1 in all others; what lies behind the end is cut.

    Raises ConfigError for an interval that begins before 0 or does not end after its beginning.

    >>> moments_of([[(0.1, 0.25)]], frames=5, frame_rate=10)
    tensor([[-1.,  1.,  1., -1., -1.]])
    """
    found = torch.full((len(intervals), frames), -1.0)
    for row, sounds in zip(found, intervals, strict=True):
        for start, end in sounds:
            if not 0 <= start < end < math.inf:
                raise ConfigError(
                    f"interval {start:g}-{end:g}: expected seconds, a beginning of at least 0 before its end"
                )
            first = math.floor(start * frame_rate + _ROUNDING)
            row[first : math.ceil(end * frame_rate - _ROUNDING)] = 1.0
    return found
