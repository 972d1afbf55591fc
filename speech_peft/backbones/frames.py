"""Frames of a batch of clips: which of them hold sound, and which are the clips' own."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def from_outside(
    inside: Float[Tensor, "p*b n+t d"], entered: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t d"]:
    """States between blocks, without what adapters of a span of blocks have there for themselves.

    Frames that they add come first. Several streams of a batch lie one behind the other, and are averaged.
    """
    rows, frames = entered.shape[:2]
    one = inside if len(inside) == rows else inside.unflatten(0, (-1, rows)).mean(0)
    return one[:, -frames:]


def below(lengths: Int[Tensor, " b"], width: int) -> Bool[Tensor, "b t"]:
    """True at the positions before each length."""
    return torch.arange(width, device=lengths.device)[None] < lengths[:, None]
