"""Bridge: a frozen decoder driven by states that it was not trained on (Ma et al. 2023, arXiv:2311.17086).

    add         y' = y + B(y)
    replace     y' = B(y),              B(h) = W_o g(W_2 g(W_1 LN(h))),     g = GELU

PEA-Diffusion puts an MLP between the encoder of another language and a frozen generator, and trains nothing
else. Here it stands where the states leave the encoder (site "norm"), behind its last block and before
whatever reads them: all that is learned lies between two frozen halves, and a decoder that was adapted by
somebody else is driven by it as well. The matrices have no bias, LN has.

`replace` is the published form, with PyTorch's random start: between an encoder and a decoder that never
met there is nothing to begin from. Where the two are halves of one model there is, and `add` begins as that
model: W_o starts at zero. A bridge is as wide as the stream that it stands in, so an encoder and a decoder of
different widths are out of its reach. The paper's second output, a pooled vector, has no reader in a decoder
of speech and is left out.

The published training has a teacher: the same frozen decoder on what it was trained for (`task.parallel`).
"""

from itertools import pairwise
from typing import ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.method import Method
from ..core.site import Kind, Site
from ..registry import METHODS


@METHODS.register("bridge")
class Bridge(Method):
    """An MLP between a frozen encoder and a frozen decoder, as for another language."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"norm", "stack"})

    sites: tuple[str, ...] = ("norm",)
    form: Literal["add", "replace"] = "add"
    """`add` begins as the model that both halves come from; `replace`, as published, at random."""
    width: PositiveInt | None = None
    """Channels between its layers; by default twice the stream's."""
    layers: PositiveInt = 2
    """How many layers of that width there are."""

    @property
    def identity_at_init(self) -> bool:
        return self.form == "add"

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Bridge(site, self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(width=8), cls(form="replace", width=8, layers=1)]


class _Bridge(Adapter):
    def __init__(self, site: Site, settings: Bridge):
        super().__init__()
        width = settings.width or 2 * site.dim_out
        widths = [site.dim_out, *[width] * settings.layers]
        self.norm = nn.LayerNorm(site.dim_out)
        self.hidden = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in pairwise(widths))
        self.out = nn.Linear(width, site.dim_out, bias=False)
        self.adds = settings.form == "add"
        if self.adds:
            nn.init.zeros_(self.out.weight)  # zero: a fresh adapter changes nothing

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        h = self.norm(y)
        for layer in self.hidden:
            h = F.gelu(layer(h))
        return y + self.out(h) if self.adds else self.out(h)
