"""Knitting: attention along time, then along frequency, where the states are a map (arXiv:2410.22901).

    h = D LN(y)                                             down to c channels
    a = A_1(LN'(h + p_1)),    b = A_2(LN'(a + p_2))         A_1 along one axis of the map, A_2 along the other
    y' = y + U b                                            U starts at zero

HelloMeme (Zhang et al. 2024) knits the rows and columns of an image: every patch reaches every other one in
two steps, by scores of F T (F + T) pairs instead of (F T)^2, 10.7 times fewer on AST's 12 x 101 patches. As
published there is no way around the second attention, q, k and v have no bias, both attentions have one norm
and positions are sinusoids, here without a longest map. Ours are the way down to c channels and up again
(the paper knits at full width and ends in a 3 x 3 convolution), and what is left out: the second map that it
knits in, of a reference.

It needs sites that know how many bands their frames lie in (`Site.bands`): AST's, and those of the decoder
`map`, which filters a spectrum by patches. Where a frame is a moment (Whisper, Conformers, the decoders
`mask` and `istft`) frequency is folded into the channels, and there is no axis to go along. Frames that sum
up a clip have no place on the map and pass by. What a clip was padded with is not listened to along time;
along frequency a column is the clip's own or is not, as a whole.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.listening.heads import attended
from ..core.listening.sinusoids import sinusoids
from ..core.method import Method
from ..core.site import Kind, Site
from ..errors import ConfigError, SpeechPeftError
from ..registry import METHODS

Axis = Literal["time", "frequency"]


@METHODS.register("knitting")
class Knitting(Method):
    """Attention along time, then along frequency, on a map of patches."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"stack", "block", "tail", "attn", "ffn"})

    sites: tuple[str, ...] = ("layers.*.block",)
    width: PositiveInt = 64
    """Channels that attend, c."""
    heads: PositiveInt = 4
    """Of each attention."""
    order: tuple[Axis, ...] = ("time", "frequency")
    """Along which axes, and in which order; one alone leaves the other out."""

    @field_validator("order")
    @classmethod
    def _each_once(cls, given: tuple[Axis, ...]) -> tuple[Axis, ...]:
        if not given or len(set(given)) < len(given):
            raise ValueError(f"expected time, frequency or both, each once; got {', '.join(given) or 'none'}")
        return given

    @model_validator(mode="after")
    def _whole_heads(self) -> "Knitting":
        if self.width % self.heads:
            raise ValueError(f"heads: {self.width} channels are not {self.heads} heads of one size")
        return self

    @property
    def sees_neighbours(self) -> bool:
        return True

    def check(self, adapter: str, site: Site) -> None:
        super().check(adapter, site)
        if site.bands is None:
            raise ConfigError(
                f"adapter {adapter!r}: {self.name} goes along time and along frequency, and at {site.name} "
                "frequency is folded into the channels: a frame there is a moment, and has no band. Choose "
                "what has bands (the backbone ast, the decoder map), or a method along time: convpass"
            )

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Knitting(site, self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [
            cls(width=8, heads=2),
            cls(width=8, heads=2, order=("frequency", "time"), sites=("layers.*.ffn",)),
        ]


class _Knitting(Adapter):
    def __init__(self, site: Site, settings: Knitting):
        super().__init__()
        assert site.bands is not None
        width = settings.width
        self.norm, self.down = nn.LayerNorm(site.dim_out), nn.Linear(site.dim_out, width)
        self.inner = nn.LayerNorm(width)
        self.along = nn.ModuleList(_Along(width, width // settings.heads) for _ in settings.order)
        self.up = nn.Linear(width, site.dim_out)
        nn.init.zeros_(self.up.weight)  # zero: a fresh adapter changes nothing
        nn.init.zeros_(self.up.bias)
        self.site, self.bands, self.order = site.name, site.bands, settings.order

    def forward(
        self, x: Float[Tensor, "b n i"], y: Float[Tensor, "b n o"], ctx: Context
    ) -> Float[Tensor, "b n o"]:
        first = sum(ctx.summary or (0, 0))  # what comes before the map
        frames = y.shape[1] - first
        if frames % self.bands or ctx.gathered:
            raise SpeechPeftError(
                f"{self.site}: {frames} frames pass, which are no map of {self.bands} bands. Is it whole? A "
                "method that leaves frames out, or adds some behind the map, cannot sit around this one"
            )
        h = self.down(self.norm(y[:, first:])).unflatten(1, (self.bands, -1))
        sound = ctx.mask if ctx.sound is None else ctx.sound
        there = None if sound is None else sound[:, first:].unflatten(1, (self.bands, -1))
        for axis, attention in zip(self.order, self.along, strict=True):
            h = self._through(attention, h, there, axis)
        return torch.cat((y[:, :first], y[:, first:] + self.up(h.flatten(1, 2))), 1)

    def _through(
        self,
        attention: nn.Module,
        h: Float[Tensor, "b f t c"],
        there: Bool[Tensor, "b f t"] | None,
        axis: Axis,
    ) -> Float[Tensor, "b f t c"]:
        if axis == "frequency":
            h, there = h.transpose(1, 2), None
        lines = h.flatten(0, 1)
        places = sinusoids(lines.shape[1], lines.shape[2], lines.device).to(lines.dtype)
        made = attention(self.inner(lines + places), None if there is None else there.flatten(0, 1))
        h = made.unflatten(0, h.shape[:2])
        return h.transpose(1, 2) if axis == "frequency" else h


class _Along(nn.Module):
    """Self-attention of the places of a line; where none of them is heard, of all."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in "qkv")
        self.o, self.size = nn.Linear(width, width), size

    def forward(self, h: Float[Tensor, "m n c"], there: Bool[Tensor, "m n"] | None) -> Float[Tensor, "m n c"]:
        open = None if there is None else there | ~there.any(1, keepdim=True)
        return self.o(attended(self.q(h), self.k(h), self.v(h), open, self.size))
