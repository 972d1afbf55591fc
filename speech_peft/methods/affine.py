"""Affine tuning: a scale and a shift per channel behind frozen layers.

    y' = (1 + s) * y + t

Behind a norm this trains its gain and bias (the layer-norm tuning of Houlsby et al. 2019, arXiv:1902.00751);
behind a linear layer and with `scale: false` it trains the layer's bias (BitFit, Zaken et al. 2021,
arXiv:2106.10199). Either way it merges exactly.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.method import Method
from ..core.site import Kind, Site
from ..registry import METHODS


@METHODS.register("affine")
class Affine(Method):
    """Norm and bias tuning."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"norm", "linear"})

    sites: tuple[str, ...] = ("*norm*",)
    scale: bool = True
    shift: bool = True

    @model_validator(mode="after")
    def _something_to_train(self) -> "Affine":
        if not (self.scale or self.shift):
            raise ValueError("affine: scale and shift are both off, so nothing would train")
        return self

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Affine(site.dim_out, self.scale, self.shift)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(), cls(sites=("*.ffn.*", "*.attn.q"), scale=False)]


class _Affine(Adapter):
    def __init__(self, dim: int, scale: bool, shift: bool):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(dim)) if scale else None
        self.shift = nn.Parameter(torch.zeros(dim)) if shift else None

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        if self.scale is not None:
            y = y + y * self.scale
        return y if self.shift is None else y + self.shift

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.scale is not None:
            gain = 1 + self.scale
            weight = weight * gain.view(-1, *[1] * (weight.dim() - 1))
            bias = None if bias is None else bias * gain
        if self.shift is not None:
            bias = self.shift if bias is None else bias + self.shift
        return weight, bias
