"""Timestamps: when something sounds, as residuals of a diffusion (Zhang et al. 2024, arXiv:2407.01494).

    y' = y + s U gelu(D y + C(m))       m: +1 in frames where something is to sound, -1 elsewhere
                                        C: two convolutions along time; U is zero at first

FoleyCrafter's temporal controller. There a whole copy of the U-Net's encoder reads the moments (ControlNet),
and its residuals come in at a scale of 0.2; here each site has a small network of its own, as in T2I-Adapter.
Moments are `Context.moments`, made of intervals by `core.listening.moments`; without them nothing changes.
"""

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat, PositiveInt, field_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.method import Method
from ..core.site import Kind, Site
from ..errors import ConfigError
from ..registry import METHODS


@METHODS.register("timestamps")
class Timestamps(Method):
    """Lets something sound at given moments, and not at others."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"block", "tail", "attn", "cross", "ffn"})

    sites: tuple[str, ...] = ("layers.*.block",)
    width: PositiveInt = 64
    """Channels of the network."""
    kernel: PositiveInt = 9
    """Frames that each of the two convolutions sees; odd."""
    scale: NonNegativeFloat = 1.0
    """What it adds is multiplied by this; 0 is the frozen model."""

    @field_validator("kernel")
    @classmethod
    def _odd(cls, given: int) -> int:
        if given % 2 == 0:
            raise ValueError(f"{given} frames have no middle; give an odd number")
        return given

    @property
    def hears(self) -> frozenset[str]:
        return frozenset({"moments"})

    @property
    def sees_neighbours(self) -> bool:
        return True

    def check(self, adapter: str, site: Site) -> None:
        super().check(adapter, site)
        if site.bands is not None and site.bands > 1:
            raise ConfigError(
                f"adapter {adapter!r}: at {site.name} frames lie in {site.bands} bands, and timestamps knows "
                "moments of one row of frames. Choose another backbone: mel_diffusion, whisper, conformer"
            )

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Timestamps(site, self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [cls(width=8), cls(sites=("layers.*.ffn",), width=8, kernel=3, scale=0.5)]


class _Timestamps(Adapter):
    def __init__(self, site: Site, settings: Timestamps):
        super().__init__()
        self.site, self.scale, self.reach = site.name, settings.scale, settings.kernel // 2
        width = settings.width
        self.down, self.up = nn.Linear(site.dim_out, width), nn.Linear(width, site.dim_out)
        self.first, self.second = (nn.Conv1d(n, width, settings.kernel) for n in (1, width))
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(
        self, x: Float[Tensor, "b t i"], y: Float[Tensor, "b t o"], ctx: Context
    ) -> Float[Tensor, "b t o"]:
        if ctx.moments is None:
            return y
        told = self._along(ctx.moments.to(y.dtype), y.shape[1], ctx.mask if ctx.sound is None else ctx.sound)
        return y + self.scale * self.up(F.gelu(self.down(y) + told))

    def _along(
        self, moments: Float[Tensor, "b n"], frames: int, clip: Bool[Tensor, "b t"] | None
    ) -> Float[Tensor, "b t c"]:
        """What the convolutions make of them; nothing sounds outside a clip."""
        moments = F.pad(moments[:, :frames], (0, max(0, frames - moments.shape[1])), value=-1.0)
        moments = moments if clip is None else moments.masked_fill(~clip, -1.0)
        around = F.pad(moments, (2 * self.reach, 2 * self.reach), value=-1.0)
        return self.second(F.gelu(self.first(around[:, None]))).transpose(1, 2)
