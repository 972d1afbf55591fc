"""A change of one linear layer by a low rank: what a LoRA is, and what more methods than LoRA amount to."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class LowRank:
    """y' = y + (alpha / r) (B A x + c), in the numbers that PEFT's files hold: nothing is lost on the way."""

    a: Float[Tensor, "r i"]
    b: Float[Tensor, "o r"]
    alpha: float
    bias: Float[Tensor, " o"] | None = None
    """c, which PEFT calls lora_bias and scales as it scales B A."""
    dropout: float = 0.0
    """Of x, while it trains."""

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def onto(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the layer with the change in them, computed in the weight's precision."""
        changed = weight + self.scale * self.b.to(weight.dtype) @ self.a.to(weight.dtype)
        if self.bias is None:
            return changed, bias
        shift = self.scale * self.bias.to(weight.dtype)
        return changed, shift if bias is None else bias + shift

    def to(self, dtype: torch.dtype) -> "LowRank":
        """The same change in another precision, without the graph it was computed by."""
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        return LowRank(self.a.detach().to(dtype), self.b.detach().to(dtype), self.alpha, bias, self.dropout)

    def padded(self, rank: int) -> "LowRank":
        """The same change with rows of zeros up to `rank`, and a scale of one."""
        more = rank - self.rank
        bias = None if self.bias is None else self.scale * self.bias
        return LowRank(
            pad(self.a, (0, 0, 0, more)), pad(self.scale * self.b, (0, more)), float(rank), bias, self.dropout
        )


def nearest(change: Float[Tensor, "o i"], rank: int) -> tuple[LowRank, float]:
    """The LoRA of this rank that comes closest to a change of a weight, and |what is missing| / |change|."""
    u, s, v = torch.linalg.svd(change.detach(), full_matrices=False)
    rank = min(rank, len(s))
    root = s[:rank].sqrt()
    whole = s.square().sum()
    error = (s[rank:].square().sum() / whole).sqrt().item() if whole else 0.0
    return LowRank(root[:, None] * v[:rank], u[:, :rank] * root, float(rank)), error
