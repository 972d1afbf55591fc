"""AdapterBias: a direction per layer, and for each frame how far along it (Fu et al. 2022, arXiv:2205.00305).

    y' = y + alpha(x) v,      alpha(x) = w . x + c,      y = W x + b

x is what the second feed-forward layer reads (the hidden activations, of width f), not what it writes. Every
frame of a layer moves along the same v, so the shift has rank one, and base and shift are one layer again:

    W' = W + v w^T,      b' = b + c v            a LoRA of rank one with a bias

v begins as zero, w and c as PyTorch's linear layer. A layer costs f + d + 1 numbers; with `share_alpha` all
layers have one w and c, and each costs d. Merged it costs nothing. The paper adds the shift behind the
layer's dropout, which in a frozen base is off, and before the residual: in a Conformer's half-step it is
halved too. It also trains the norms: add an `affine` adapter.

`alphas` gives the map of alpha over the frames, which the paper reads as how much a frame matters to the
task:

    with alphas(model, "sounds") as seen:
        backbone.encode(features)
    seen["layers.3.ffn.down"]               # (batch, frames)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.low_rank import LowRank
from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.site import Kind, Site
from ..errors import ConfigError
from ..registry import METHODS


@METHODS.register("adapter_bias")
class AdapterBias(Method):
    """A shift along one direction per layer, weighed frame by frame; merges exactly."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear"})

    sites: tuple[str, ...] = ("*.ffn*.down",)
    share_alpha: bool = False
    """One w and c for all layers, which must then read the same width."""

    def shared(self, sites: Sequence[Site]) -> nn.Module | None:
        if not self.share_alpha:
            return None
        first = sites[0]
        for site in sites:
            if site.dim_in != first.dim_in:
                raise ConfigError(
                    f"adapter_bias: share_alpha needs layers that read one width, and {first.name} reads "
                    f"{first.dim_in}, {site.name} {site.dim_in}. Narrow `sites`, or drop share_alpha"
                )
        return nn.Linear(first.dim_in, 1)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _AdapterBias(site.dim_in, site.dim_out, shared)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(), cls(share_alpha=True, sites=("*.attn.[kv]",))]


class _AdapterBias(Adapter):
    def __init__(self, dim_in: int, dim_out: int, shared: nn.Module | None):
        super().__init__()
        self.v = nn.Parameter(torch.zeros(dim_out))  # w must not be zero too: neither would get a gradient
        self.own = nn.Linear(dim_in, 1) if shared is None else None
        self.lent = (shared,)  # in a tuple, since it belongs to the model and not to this site

    @property
    def score(self) -> nn.Linear:
        score = self.lent[0] if self.own is None else self.own
        assert isinstance(score, nn.Linear)
        return score

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        return y + self.score(x) * self.v

    def to_lora(self, weight: Tensor, bias: Tensor | None) -> LowRank:
        return LowRank(self.score.weight, self.v[:, None], 1.0, self.score.bias * self.v)


@contextmanager
def alphas(model: AdaptedModel, name: str) -> Iterator[dict[str, Float[Tensor, "b t"]]]:
    """Notes, in every forward pass inside the block, how far each frame is moved: by site, (batch, frames).

    Each pass overwrites the last one's. Raises ConfigError where adapter `name` is no adapter_bias.
    """
    model.parameters_of(name)  # an unknown name is refused with those that are known
    if not isinstance(model.methods[name], AdapterBias):
        raise ConfigError(f"adapter {name!r} is of method {model.methods[name].name}, which has no alpha")
    seen: dict[str, Tensor] = {}
    hooks = [
        model.at(name, site).register_forward_pre_hook(partial(_note, seen, site.name))
        for site in model.sites[name]
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _note(seen: dict[str, Tensor], name: str, part: nn.Module, args: tuple[Any, ...]) -> None:
    assert isinstance(part, _AdapterBias)
    seen[name] = part.score(args[0]).squeeze(-1)
