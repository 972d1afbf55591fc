"""Affine tuning: a scale and a shift per channel behind frozen layers.

    y' = (1 + s) * y + t

Behind a norm this trains its gain and bias; behind a linear layer and without the scale it trains the layer's
bias. Either way it merges exactly. Presets change only defaults:

    norm        gain and bias of every norm (Houlsby et al. 2019, arXiv:1902.00751)
    bitfit      the biases that the encoder's blocks have, in their linear layers and norms (BitFit, Zaken et
                al. 2021, arXiv:2106.10199). A key's bias is counted as published, though attention by content
                alone cannot feel it: it adds the same score to every key.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.method import Method
from ..core.site import Kind, Site, resolve
from ..errors import ConfigError
from ..registry import METHODS

PRESETS: dict[str, dict[str, Any]] = {
    "norm": {"sites": ("*norm*",)},
    "bitfit": {
        "sites": ("layers.*.attn.?", "layers.*.ffn*.*", "layers.*.norm*"),
        "scale": False,
        "existing": True,
    },
}


@METHODS.register("affine")
class Affine(Method):
    """Norm and bias tuning."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"norm", "linear"})

    preset: Literal["norm", "bitfit"] = "norm"
    sites: tuple[str, ...] = ("*norm*",)
    scale: bool = True
    shift: bool = True
    existing: bool = False
    """Sit only behind layers that have a bias of their own."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {**PRESETS.get(given.get("preset", "norm"), {}), **given}

    @model_validator(mode="after")
    def _something_to_train(self) -> "Affine":
        if not (self.scale or self.shift):
            raise ValueError("affine: scale and shift are both off, so nothing would train")
        return self

    def choose(self, sites: Sequence[Site], base: nn.Module) -> list[Site]:
        chosen = super().choose(sites, base)
        if not self.existing:
            return chosen
        biased = [site for site in chosen if getattr(resolve(base, site.exit), "bias", None) is not None]
        if not biased:
            raise ConfigError(
                f"affine: none of the chosen sites ({chosen[0].name} …) has a bias, and `existing` asks for "
                "one. Train the gains of the norms instead: preset norm"
            )
        return biased

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Affine(site.dim_out, self.scale, self.shift)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(), cls(sites=("*.ffn.*", "*.attn.q"), scale=False), cls(preset="bitfit")]


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
