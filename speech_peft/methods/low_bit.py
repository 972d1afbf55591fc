"""Adapters of one or two bits a weight, quantised while they train (Jie et al. 2023, arXiv:2307.16867).

    W' = sigma q((W - mu) / (sigma + 1e-5)) + mu      mu, sigma: mean and standard deviation of the matrix W
    q(z)                                              the nearest of 2^b codes

The codes are the L1-optimal ones of a normal distribution: each the median of its bin, each threshold the
middle of two codes. One bit: -0.674, 0.674. Two bits: -1.266, -0.378, 0.378, 1.266. (0.798 for one bit
would be L2-optimal.) A z on a threshold takes the upper code, so a matrix has 2^b values and not one more.

What is trained is W, in float32. q passes gradients as if it were the identity; mu and sigma have their own:

    dL/dW = g + (sum_j g_j (q_j - z_j)) z / (n - 1),      g = dL/dW'

It is computed in float32 also under autocast. Sigma is the scale of the output: weight decay shrinks it,
and a matrix that starts at zero would have none. So such a matrix starts at a truncated normal of
`init_std`, and a fresh adapter is only nearly the identity. What is merged is W'; to be averaged is W.

Published with hosts that have no biases: bottlenecks of width 32 beside the feed-forward sublayer, and LoRA
of rank 32 on queries and values. What has one dimension (biases, norms) stays as it is.

A file holds of every matrix of n numbers ceil(n b / 8) bytes of codes, the first in the lowest bits, and 8 of
mu and sigma: on twelve blocks of width 768 73,920 bytes for that bottleneck, as published.
"""

from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from statistics import NormalDist
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from ..core.lifecycle import Lifecycle
from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.packing import Packed, pack_digits, unpack_digits
from ..core.wrapping import Wrapping, constraints
from ..registry import METHODS

EPS = 1e-5  # in (W - mu) / (sigma + eps), as published


@METHODS.register("low_bit")
class LowBit(Wrapping):
    """The matrices of another method in one or two bits a weight, in training and on disk."""

    bits: Literal[1, 2] = 1
    init_std: PositiveFloat = 1e-3
    """Of a normal distribution truncated at twice that, for matrices that the host starts at zero."""

    @property
    def identity_at_init(self) -> bool:
        return False

    def constraint(self, key: str, weight: nn.Parameter) -> Packed:
        if not weight.any():
            nn.init.trunc_normal_(weight, std=self.init_std, a=-2 * self.init_std, b=2 * self.init_std)
        return Quantised(self.bits)

    def lifecycle(self, model: AdaptedModel, adapter: str) -> Lifecycle:
        return _Thaw(model, adapter)

    @classmethod
    def examples(cls) -> list[Method]:
        bottleneck = {"method": "bottleneck", "width": 6, "bias": False, "scale": 4.0}
        lora = {"method": "lora", "rank": 3, "sites": ["*.attn.[qv]"]}
        return [cls.model_validate({"of": bottleneck}), cls.model_validate({"bits": 2, "of": lora})]


@cache
def codes(bits: int) -> tuple[float, ...]:
    """The codes of a normal distribution: k-medians, by turns thresholds and codes until they stay."""
    normal, half = NormalDist(), 2 ** (bits - 1)
    upper = [normal.inv_cdf(0.5 + (i + 0.5) / (2 * half)) for i in range(half)]
    for _ in range(500):
        edges = [0.5, *(normal.cdf((a + b) / 2) for a, b in pairwise(upper)), 1.0]
        upper = [normal.inv_cdf((a + b) / 2) for a, b in pairwise(edges)]
    return (*(-code for code in reversed(upper)), *upper)


def thresholds(bits: int) -> tuple[float, ...]:
    """Between one code and the next; a number on a threshold takes the upper code."""
    return tuple((a + b) / 2 for a, b in pairwise(codes(bits)))


FOLLOWS = (0.0, -1.0)
"""Held mean and deviation of a matrix whose own ones count."""


class Quantised(Packed):
    """W to W'."""

    suffixes: ClassVar[tuple[str, ...]] = (".codes", ".statistics")
    held: Tensor

    def __init__(self, bits: int):
        super().__init__()
        self.bits, self.levels, self.edges = bits, codes(bits), thresholds(bits)
        # Mean and deviation that a file gave; a deviation below zero says that they follow W. A file does not
        # hold W: another with its codes stands for it, and its own mean and deviation are right only to a few
        # digits.
        self.register_buffer("held", torch.tensor(FOLLOWS))

    def forward(self, latent: Tensor) -> Tensor:
        with torch.autocast(latent.device.type, enabled=False):
            mean, std, z = self.standardised(latent)
            q = torch.full_like(z, self.levels[0])
            for edge, code in zip(self.edges, self.levels[1:], strict=True):
                q = torch.where(z.detach() >= edge, code, q)
            # The bracket is zero, exactly, so that W' has no more values than there are codes.
            return (std * (q + (z - z.detach())) + mean).to(latent.dtype)

    def standardised(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, deviation and z of a matrix, in float32."""
        w, held = latent.float(), self.held.float()
        known = held[1] >= 0
        mean = torch.where(known, held[0], w.mean())
        std = torch.where(known, held[1], w.std())
        return mean, std, (w - mean) / (std + EPS)

    def pack(self, *trained: Tensor) -> tuple[Tensor, Tensor]:
        mean, std, z = self.standardised(trained[0].detach())
        return pack_digits(self._digits(z.flatten()), self.bits), torch.stack([mean, std])

    def _digits(self, z: Tensor) -> Tensor:
        return torch.stack([z >= edge for edge in self.edges]).sum(0)

    def unpack(self, stored: tuple[Tensor, ...], *trained: Tensor) -> list[tuple[Tensor, Tensor]]:
        packed, statistics = stored
        digits = unpack_digits(packed, self.bits, trained[0].numel())
        if statistics.shape != self.held.shape:
            raise ValueError(f"has {statistics.numel()} statistics, expected a mean and a deviation")
        mean, std = statistics.float()
        z = self._with_these(digits.view_as(trained[0]))
        return [(trained[0], mean + (std + EPS) * z), (self.held, statistics)]

    def _with_these(self, digits: Tensor) -> Tensor:
        """Numbers of mean 0 and deviation 1 with these codes: from there training goes on where it was.

        The codes alone have a smaller deviation, and so would all that is learned from them.
        """
        levels = torch.tensor(self.levels, device=digits.device)
        edges = torch.tensor([-torch.inf, *self.edges, torch.inf], device=digits.device)
        low, high = edges[digits], edges[digits + 1]
        z = levels[digits]
        for _ in range(50):
            z = (z - z.mean()) / (z.std() + EPS)
            if bool(((z > low + 1e-3) & (z < high - 1e-3)).all()):  # also after rounding
                return z
            z = z.clamp(low + 5e-3, high - 5e-3)
        return levels[digits]


class _Thaw(Lifecycle):
    """Statistics that a file gave hold until training begins."""

    def __init__(self, model: AdaptedModel, adapter: str):
        self.model, self.adapter = model, adapter

    def on_fit_start(self, loss_fn: Callable[[Any], Tensor], batches: Iterable[Any]) -> None:
        for part in self.model._parts(self.adapter):
            for _, quantised in constraints(part, Quantised):
                quantised.held.copy_(torch.tensor(FOLLOWS))
