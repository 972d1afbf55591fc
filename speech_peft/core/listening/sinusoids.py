"""Places in a row as sines and cosines (Vaswani et al. 2017, in the order that Whisper has them)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sinusoids(places: int, width: int, device: torch.device | str | None = None) -> Float[Tensor, "n c"]:
    """Sines and then cosines, half of the channels each, of wavelengths from 2 pi to 10,000 times that."""
    half = (width + 1) // 2
    rates = torch.exp(-math.log(10_000) / max(1, half - 1) * torch.arange(half, device=device))
    angles = torch.arange(places, device=device)[:, None] * rates[None]
    return torch.cat((angles.sin(), angles.cos()), 1)[:, :width]
