"""LoRA: a change of rank r beside a frozen linear layer (Hu et al. 2021, arXiv:2106.09685, eq. 3).

y' = y + (alpha / r) B A dropout(x),      y = W x + b
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.method import Method
from ..core.site import Kind, Site
from ..registry import METHODS


@METHODS.register("lora")
class Lora(Method):
    """Low-rank adaptation of linear layers; merges exactly, and speaks PEFT's file format."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear"})

    sites: tuple[str, ...] = ("*.attn.[qv]",)
    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Lora(site.dim_in, site.dim_out, self.rank, self.alpha / self.rank, self.dropout)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(rank=4, alpha=8, sites=("*.attn.[qv]", "*.ffn.up"))]


class _Lora(Adapter):
    def __init__(self, dim_in: int, dim_out: int, rank: int, scale: float, dropout: float):
        super().__init__()
        # PEFT's initialisation: kaiming-uniform with a = sqrt(5) is uniform within 1 / sqrt(dim_in).
        self.a = nn.Parameter(torch.empty(rank, dim_in).uniform_(-(dim_in**-0.5), dim_in**-0.5))
        self.b = nn.Parameter(torch.zeros(dim_out, rank))
        self.scale, self.dropout = scale, dropout

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        h = F.linear(F.dropout(x, self.dropout, self.training) if self.dropout else x, self.a)
        # One fused multiply-add: no second tensor of y's size is written, nor scaled.
        return torch.addmm(y.flatten(0, -2), h.flatten(0, -2), self.b.t(), alpha=self.scale).view_as(y)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.scale * self.b @ self.a, bias
