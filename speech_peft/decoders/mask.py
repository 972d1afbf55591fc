"""A bounded complex mask on the degraded spectrum, predicted from the cleaned states and that spectrum.

    Y = M * X        M = bound * tanh(|z| / bound) * z / |z|,    z: the network, and what makes M = 1 at first

Nothing is made that was not in the recording, so words and voices of people never heard stay theirs; what is
missing (a cut band, a lost packet) stays missing. Complex ratio masks: Williamson et al. 2016
(doi:10.1109/TASLP.2015.2512042). The network sees no absolute level: a recording ten times as loud gives the
same mask.
"""

import math
from abc import abstractmethod
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.site import Site
from ..registry import DECODERS
from .convnext import ConvNeXt, sites_of
from .spectral import Resolution, spectrum
from .waveform import DecoderConfig, WaveformDecoder

RATE = 100
"""Spectra a second."""
NEARBY = 201
"""Spectra (2 s) over which the level is taken that all else is relative to."""
FLOOR = 1e-4
"""Below this share of the level nearby (-80 dB) nothing is told apart."""


@DECODERS.register("mask")
class Mask(DecoderConfig):
    """A light filter of the degraded recording."""

    sample_rate: Annotated[int, Field(ge=8000, multiple_of=RATE)] = 16000
    channels: PositiveInt = 256
    blocks: PositiveInt = 6
    bound: Annotated[float, Field(gt=1)] = 2.0
    """The most that a bin is amplified; 2 is 6 dB."""

    def build(self, dim: int, frame_rate: float) -> "MaskDecoder":
        return MaskDecoder(self, dim, frame_rate)


class Filter(WaveformDecoder):
    """Windows of 32 ms every 10 ms, each bin of each multiplied by what a network says; see the file."""

    needs_waveform = True
    window: Float[Tensor, " w"]
    turn_back: Tensor

    def __init__(self, settings: DecoderConfig, bound: float, dim: int, frame_rate: float):
        super().__init__(settings, dim, frame_rate)
        size = round(settings.sample_rate * 0.016) * 2
        self.resolution = Resolution(size, size, settings.sample_rate // RATE)
        self.bound, self.bins = bound, size // 2 + 1
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        advance = torch.arange(self.bins) * (2 * math.pi * self.resolution.hop / size)
        turned = torch.polar(torch.ones(self.bins), -advance)[:, None]
        self.register_buffer("turn_back", turned, persistent=False)

    def _estimates(
        self,
        states: Float[Tensor, "b t d"],
        degraded: Float[Tensor, "b s"] | None,
        generator: torch.Generator | None,
        steps: int | None,
    ) -> list[Float[Tensor, "b n"]]:
        assert degraded is not None  # `estimates` has checked
        length = self.samples(states.shape[1], degraded)
        heard = spectrum(degraded[..., :length], self.resolution, self.window)
        mask = self.mask(states, heard)
        with torch.autocast(heard.device.type, enabled=False):
            n_fft, window, hop = self.resolution
            return [torch.istft(mask * heard, n_fft, hop, window, self.window, center=True, length=length)]

    def mask(self, states: Float[Tensor, "b t d"], heard: Float[Tensor, "b f u"]) -> Float[Tensor, "b f u"]:
        """Complex, of no greater magnitude than `bound`."""
        real, imaginary = self.network(states, self.features(heard)).float().unbind(1)
        real = real + self.bound * math.atanh(1 / self.bound)
        size = (real.square() + imaginary.square() + 1e-12).sqrt()
        within = self.bound * torch.tanh(size / self.bound) / size
        return torch.complex(within * real, within * imaginary)

    @abstractmethod
    def network(
        self, states: Float[Tensor, "b t d"], features: Float[Tensor, "b 3 f u"]
    ) -> Float[Tensor, "b 2 f u"]:
        """Real and imaginary part for each bin, before they are bounded; 0 changes nothing."""

    def features(self, heard: Float[Tensor, "b f u"]) -> Float[Tensor, "b 3 f u"]:
        """Log magnitude relative to the level nearby, and how each bin's phase turned since the last frame.

        The level is a mean of power over a fixed stretch in which padding counts as silence, so that a clip
        padded in a batch reads as it does alone.
        """
        with torch.autocast(heard.device.type, enabled=False):
            power = torch.view_as_real(heard).square().sum(-1)
            level = F.avg_pool1d(power.mean(1, keepdim=True), NEARBY, stride=1, padding=NEARBY // 2)
            relative = heard / (level + 1e-12).sqrt()
            size = (torch.view_as_real(relative).square().sum(-1) + FLOOR**2).sqrt()
            before = F.pad(relative[..., :-1], (1, 0))
            turned = torch.view_as_real(relative * before.conj() * self.turn_back)
            # Its length compressed, so that a bin that is barely there has barely a direction.
            turned = turned / (turned.square().sum(-1, keepdim=True) + FLOOR).sqrt().sqrt()
            return torch.stack((size.log() / 3, turned[..., 0], turned[..., 1]), dim=1)


class MaskDecoder(Filter):
    """A frame is a spectrum: frequency lies in its channels."""

    name = "mask"

    def __init__(self, settings: Mask, dim: int, frame_rate: float):
        super().__init__(settings, settings.bound, dim, frame_rate)
        width = settings.channels
        self.hear = nn.Linear(3 * self.bins, width)
        self.know = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
        self.blocks = nn.ModuleList(
            ConvNeXt(width, 2 * width, dilation=2 ** (i % 3), scale=1 / settings.blocks)
            for i in range(settings.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2 * self.bins)
        nn.init.zeros_(self.out.weight)  # the recording passes as it is until something is learned
        nn.init.zeros_(self.out.bias)

    def sites(self) -> list[Site]:
        return sites_of(self.blocks)

    def network(
        self, states: Float[Tensor, "b t d"], features: Float[Tensor, "b 3 f u"]
    ) -> Float[Tensor, "b 2 f u"]:
        known = at_times(self.know(states), features.shape[-1], self.frame_rate / RATE)
        x = self.hear(features.flatten(1, 2).transpose(1, 2)) + known
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x)).transpose(1, 2).unflatten(1, (2, -1))


def at_times(x: Float[Tensor, "b t c"], count: int, rate: float) -> Float[Tensor, "b u c"]:
    """`x` at the times 0, rate, 2 rate, ... of its own frames: linear between them, the last one held."""
    times = torch.arange(count, device=x.device) * rate
    last = x.shape[1] - 1
    before = times.floor().long().clamp(max=last)
    share = (times - before).clamp(max=1.0).to(x.dtype)[:, None]
    return torch.lerp(x[:, before], x[:, (before + 1).clamp(max=last)], share)
