"""The cosine schedule of a diffusion, and a step of it without randomness (DDIM, arXiv:2010.02502).

z = a x + s e       a = cos(pi t / 2), s = sin(pi t / 2), t from 0 (no noise) to 1 (nothing else)
v = a e - s x       what a network says of z, so that x = a z - s v and e = s z + a v
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_LARGEST = 3.5
"""Scaled spectrograms lie within; what a step takes for the sound is cut off there, lest errors grow."""


def shares(time: Float[Tensor, " b"]) -> tuple[Float[Tensor, "b 1 1"], Float[Tensor, "b 1 1"]]:
    """How much of the sound and of the noise there is at each time."""
    angle = (time * (math.pi / 2))[:, None, None]
    return angle.cos(), angle.sin()


def noised(
    x: Float[Tensor, "b t w"], noise: Float[Tensor, "b t w"], time: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b t w"], Float[Tensor, "b t w"]]:
    """The sound with noise in it, and what a network is to say of that."""
    a, s = shares(time)
    return a * x + s * noise, a * noise - s * x


def ddim(
    z: Float[Tensor, "b t w"], v: Float[Tensor, "b t w"], time: float, to: float
) -> Float[Tensor, "b t w"]:
    """From one time to an earlier one, as the network's word `v` has it."""
    a, s = math.cos(math.pi / 2 * time), math.sin(math.pi / 2 * time)
    x = (a * z - s * v).clamp(-_LARGEST, _LARGEST)
    noise = s * z + a * v
    return math.cos(math.pi / 2 * to) * x + math.sin(math.pi / 2 * to) * noise


def times(steps: int) -> list[float]:
    """From 1 down to 0, one more than there are steps."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
