"""A bounded complex mask, as `mask` predicts, by a network in which frequency is an axis: a map of patches.

    Y = M * X        M: 2-D convolutions over patches of `bins` x `spectra` of the spectrum, and the states

In `mask` a frame is a whole spectrum, and what happens to a band is learned for that band alone. Here a
patch is some bins of some spectra, the same numbers go over all of them, and what is nearby is nearby in time
and in frequency. What is far away, the other end of a tilted spectrum or the hum of two seconds ago, is what
adapters such as `knitting` add: a patch lies in a band, and its sites say so.
"""

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.context import Context
from ..core.site import Site
from ..registry import DECODERS
from .convnext import MapConvNeXt, sites_of
from .mask import RATE, Filter, at_times
from .waveform import DecoderConfig


@DECODERS.register("map")
class Map(DecoderConfig):
    """A filter of the degraded recording whose network knows an axis of frequency."""

    sample_rate: Annotated[int, Field(ge=8000, multiple_of=RATE)] = 16000
    channels: PositiveInt = 64
    blocks: PositiveInt = 4
    bins: PositiveInt = 8
    """Of a patch; 8 are 250 Hz."""
    spectra: PositiveInt = 4
    """Of a patch; 4 are 40 ms."""
    bound: Annotated[float, Field(gt=1)] = 10.0
    """The most that a bin is amplified; 10 is 20 dB, as a band that is nearly gone needs it."""

    def build(self, dim: int, frame_rate: float) -> "MapDecoder":
        return MapDecoder(self, dim, frame_rate)


class MapDecoder(Filter):
    """Patches of the spectrum, all of one band before those of the next; see the file."""

    name = "map"

    def __init__(self, settings: Map, dim: int, frame_rate: float):
        super().__init__(settings, settings.bound, dim, frame_rate)
        width, self.patch = settings.channels, (settings.bins, settings.spectra)
        self.bands = -(-self.bins // settings.bins)
        self.hear = nn.Conv2d(3, width, self.patch, stride=self.patch)
        self.place = nn.Parameter(torch.zeros(self.bands, 1, width))
        self.know = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
        self.blocks = nn.ModuleList(
            MapConvNeXt(width, 2 * width, self.bands, scale=1 / settings.blocks)
            for _ in range(settings.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2 * settings.bins * settings.spectra)
        nn.init.zeros_(self.out.weight)  # the recording passes as it is until something is learned
        nn.init.zeros_(self.out.bias)

    def sites(self) -> list[Site]:
        return sites_of(self.blocks, self.bands)

    def network(
        self, states: Float[Tensor, "b t d"], features: Float[Tensor, "b 3 f u"]
    ) -> Float[Tensor, "b 2 f u"]:
        bins, spectra = features.shape[-2:]
        columns = -(-spectra // self.patch[1])
        whole = (0, columns * self.patch[1] - spectra, 0, self.bands * self.patch[0] - bins)
        heard = self.hear(F.pad(features, whole)).permute(0, 2, 3, 1)
        known = at_times(self.know(states), columns, self.patch[1] * self.frame_rate / RATE)
        x = (heard + self.place + known[:, None]).flatten(1, 2)
        with self.telling(Context(sound=self._sounding(features, columns))):
            for block in self.blocks:
                x = block(x)
        patches = self.out(self.norm(x)).unflatten(1, (self.bands, columns)).unflatten(-1, (2, *self.patch))
        made = patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return made[..., :bins, :spectra]

    def _sounding(self, features: Float[Tensor, "b 3 f u"], columns: int) -> Tensor:
        """Which patches are the clip's own: those up to the last column in which anything sounds."""
        turned = features[:, 1:].ne(0).flatten(1, 2).any(1)  # in silence no phase turns
        turned = (
            F.pad(turned, (0, columns * self.patch[1] - turned.shape[1])).unflatten(1, (columns, -1)).any(2)
        )
        up_to = turned.flip(1).cummax(1).values.flip(1)
        return up_to.repeat(1, self.bands)
