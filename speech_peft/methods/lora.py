"""LoRA: a change of rank r beside a frozen linear layer (Hu et al. 2021, arXiv:2106.09685, eq. 3).

y' = y + (alpha / r) (B A dropout(x) + c),      y = W x + b

c is PEFT's `lora_bias` and is left out unless `bias` asks for it, as published.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.low_rank import LowRank
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
    bias: bool = False
    """Whether a bias trains along, PEFT's `lora_bias`: what other methods export needs one."""

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Lora(site.dim_in, site.dim_out, self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [
            cls(rank=4, alpha=8, sites=("*.attn.[qv]", "*.ffn.up")),
            cls(rank=4, bias=True, sites=("*.attn.k",)),
        ]


class _Lora(Adapter):
    def __init__(self, dim_in: int, dim_out: int, settings: Lora):
        super().__init__()
        # PEFT's initialisation: kaiming-uniform with a = sqrt(5) is uniform within 1 / sqrt(dim_in).
        self.a = nn.Parameter(torch.empty(settings.rank, dim_in).uniform_(-(dim_in**-0.5), dim_in**-0.5))
        self.b = nn.Parameter(torch.zeros(dim_out, settings.rank))
        self.bias = nn.Parameter(torch.zeros(dim_out)) if settings.bias else None
        self.alpha, self.scale, self.dropout = (
            settings.alpha,
            settings.alpha / settings.rank,
            settings.dropout,
        )

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        h = F.linear(F.dropout(x, self.dropout, self.training) if self.dropout else x, self.a)
        if self.bias is not None:
            y = y + self.scale * self.bias
        # One fused multiply-add: no second tensor of y's size is written, nor scaled.
        return torch.addmm(y.flatten(0, -2), h.flatten(0, -2), self.b.t(), alpha=self.scale).view_as(y)

    def to_lora(self, weight: Tensor, bias: Tensor | None) -> LowRank:
        return LowRank(self.a, self.b, self.alpha, self.bias, self.dropout)
