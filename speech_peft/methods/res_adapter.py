"""ResAdapter: an encoder learns other lengths by its front end (Cheng et al. 2024, arXiv:2403.02084).

    convolutions    y' = y + s U * (D * x)      D: c_in -> r with the frozen stride; U: r -> c_out, 1 wide
    norms           y' = (1 + g) y + b          deltas: another adapter's own change of the norm stays

Nothing sits in attention, so that what is learned is the length and not the domain, and goes with adapters
that were trained at another length. The paper trains whole norms beside its convolutions, and ships these in
place of the model's; here they are deltas. `norm` says which:

    conv_adjacent   those beside convolutions: a Conformer's in its convolution module; Whisper, AST: none
    all             every norm of the encoder
    null            none: in the paper enough for shorter inputs, and not for longer ones

What becomes of positions is said of the backbone (`positions: cut, extended, interpolated`). It merges.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from ..core.adapter import Adapter, Mixer
from ..core.context import Context
from ..core.method import Method
from ..core.site import Kind, Site
from ..errors import ConfigError
from ..registry import METHODS
from .affine import Affine


@METHODS.register("res_adapter")
class ResAdapter(Method):
    """Low-rank changes of the front end's convolutions, and of norms: other lengths, other bandwidths."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"front", "norm"})

    sites: tuple[str, ...] = ()
    """Globs over site names; by default the convolutions of the front end and the norms that `norm` names."""
    rank: PositiveInt = 16
    """Channels of the convolution between, r."""
    scale: PositiveFloat = 1.0
    """Of what convolutions add, s; the paper lowers it to 0.3 to 0.7 for inputs longer than trained."""
    norm: Literal["conv_adjacent", "all"] | None = "conv_adjacent"
    """Which norms learn too."""

    def choose(self, sites: Sequence[Site], base: nn.Module) -> list[Site]:
        if self.sites:
            return super().choose(sites, base)
        found = [site for site in sites if site.kind == "front" or self._learns(site)]
        if not found:
            raise ConfigError(
                f"{self.name}: nothing before {sites[0].name} is a convolution that is known here, and "
                f"no norm is {self.norm}. Give norm=all"
            )
        return found

    def _learns(self, site: Site) -> bool:
        if site.kind != "norm" or site.causal or site.name.startswith("decoder."):
            return False
        return self.norm == "all" or (self.norm == "conv_adjacent" and site.name.endswith(".norm_conv"))

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter | Mixer:
        if site.kind == "norm":
            return Affine().build(site, target, shared)
        return _Convolution(target, self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(rank=3), cls(rank=2, norm="all", scale=0.5)]


class _Convolution(Adapter):
    """A convolution to few channels as the frozen one goes over its input, and back to all of them."""

    def __init__(self, target: nn.Module, settings: ResAdapter):
        super().__init__()
        frozen = cast("nn.Conv1d | nn.Conv2d", target)
        shape = frozen.weight.shape
        bound = shape[1:].numel() ** -0.5
        self.down = nn.Parameter(torch.empty(settings.rank, *shape[1:]).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(shape[0], settings.rank))  # zero: a fresh adapter changes nothing
        self.way: dict[str, Any] = {n: getattr(frozen, n) for n in ("stride", "padding", "dilation")}
        self.convolve = nn.functional.conv1d if len(shape) == 3 else nn.functional.conv2d
        self.scale = settings.scale

    def forward(
        self, x: Float[Tensor, "b i ..."], y: Float[Tensor, "b o ..."], ctx: Context
    ) -> Float[Tensor, "b o ..."]:
        few = self.convolve(x, self.down, **self.way)
        return y + self.scale * torch.einsum("or,br...->bo...", self.up, few)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.scale * torch.einsum("or,r...->o...", self.up, self.down), bias
