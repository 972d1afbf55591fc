"""Positions of an encoder with a table of them, for fewer frames than the table has, or for more.

cut             the first rows; there are no more than the table has
extended        beyond its end the sinusoids go on as they were computed (Whisper's, Radford et al. 2022)
interpolated    the whole table stretched or squeezed to the frames there are
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..core.listening.sinusoids import sinusoids
from ..errors import ConfigError

Positions = Literal["cut", "extended", "interpolated"]


def positions(table: Float[Tensor, "n d"], frames: int, how: str) -> Float[Tensor, "t d"]:
    """A row for each frame. Raises ConfigError for more frames than a table that is cut has."""
    if how == "interpolated" and frames != len(table):
        squeezed = F.interpolate(table.float().T[None], size=frames, mode="linear", align_corners=False)
        return squeezed[0].T.to(table.dtype)
    if frames <= len(table):
        return table[:frames]
    if how == "cut":
        raise ConfigError(
            f"positions: {frames} frames, and the table has {len(table)}; give positions=extended"
        )
    more = sinusoids(frames, table.shape[1])[len(table) :]
    return torch.cat((table, more.to(table)))
