"""Prefix tuning: trained keys and values in front of an attention's own (Li and Liang, arXiv:2101.00190).

    y' = softmax(Q [P_K; K]^T / sqrt(c)) [P_V; V] W_o

Keys and values are parameters themselves, p of each in every block, 2 p d together. The paper's network that
makes them while they train is left out, as in He et al. 2022 (arXiv:2110.04366) and PETL-AST (Cappellazzo et
al. 2023, arXiv:2312.03694). A fresh prefix is no identity: it takes its share of the attention.

They have no position. Where scores depend on relative positions, or a mask counts frames, they are refused.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.attention import Pair
from ..core.context import Context
from ..core.method import Method
from ..core.site import Kind, Site
from ..errors import ConfigError
from ..registry import METHODS


@METHODS.register("prefix")
class Prefix(Method):
    """Trained keys and values inside attention."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"attn"})

    sites: tuple[str, ...] = ("layers.*.attn",)
    frames: PositiveInt = 24
    """Keys, and as many values, of each attention, p."""
    init_std: PositiveFloat = 0.02
    """Of the normal distribution that both start from."""

    @property
    def identity_at_init(self) -> bool:
        return False

    def check(self, adapter: str, site: Site) -> None:
        super().check(adapter, site)
        if site.fixed_length:
            raise ConfigError(
                f"adapter {adapter!r}: {self.name} adds keys that have no position, and at {site.name} "
                "scores depend on relative positions, or a mask counts frames. Use bottleneck or lora there."
            )

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Prefix(self.frames, site.dim_out, self.init_std)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(frames=4)]


class _Prefix(Adapter):
    def __init__(self, frames: int, dim: int, std: float):
        super().__init__()
        self.keys = nn.Parameter(torch.randn(frames, dim) * std)
        self.values = nn.Parameter(torch.randn(frames, dim) * std)

    def added(self, x: Float[Tensor, "b t d"], ctx: Context) -> Pair:
        return self.keys.expand(x.shape[0], -1, -1), self.values.expand(x.shape[0], -1, -1)

    def forward(
        self, x: Float[Tensor, "b t d"], y: Float[Tensor, "b t d"], ctx: Context
    ) -> Float[Tensor, "b t d"]:
        return y
