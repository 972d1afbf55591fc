"""Magnitude and phase of each spectrum from the states, and an inverse short-time transform (Vocos).

    S = exp(m) * e^(i p),     m, p of a ConvNeXt stack at 100 frames a second

All layers run at the low rate of the frames, so a second costs far less than with a decoder that convolves
samples (Siuzdak 2023, arXiv:2306.00814). Where a state covers several frames a linear layer makes them apart.
Deterministic.
"""

import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..core.site import Site
from ..errors import ConfigError
from ..registry import DECODERS
from .convnext import ConvNeXt, sites_of
from .waveform import DecoderConfig, WaveformDecoder

RATE = 100
"""Frames a second of the transform, or the nearest multiple of the encoder's rate."""


@DECODERS.register("istft")
class Istft(DecoderConfig):
    """Waveforms from states alone, faster than real time on one core."""

    sample_rate: PositiveInt = 24000
    channels: PositiveInt = 512
    hidden: PositiveInt = 1536
    """Inner width of each block."""
    blocks: PositiveInt = 8
    overlap: Annotated[int, Field(ge=4, multiple_of=2)] = 4
    """Length of the window in hops."""

    def build(self, dim: int, frame_rate: float) -> "IstftDecoder":
        return IstftDecoder(self, dim, frame_rate)


class IstftDecoder(WaveformDecoder):
    """See the file."""

    name = "istft"
    window: Float[Tensor, " w"]

    def __init__(self, settings: Istft, dim: int, frame_rate: float):
        super().__init__(settings, dim, frame_rate)
        self.repeat = max(1, round(RATE / frame_rate))
        self.stride, rest = divmod(self.hop, self.repeat)
        if rest:
            raise ConfigError(
                f"decoder.sample_rate: the {self.hop} samples per state at {settings.sample_rate} Hz are "
                f"not {self.repeat} equal hops; use a multiple of {self.repeat * frame_rate:g}"
            )
        self.n_fft = settings.overlap * self.stride
        width = settings.channels
        self.enter = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, self.repeat * width))
        self.embed = nn.Conv1d(width, width, 7, padding=3)
        self.first_norm = nn.LayerNorm(width, eps=1e-6)
        self.blocks = nn.ModuleList(
            ConvNeXt(width, settings.hidden, scale=1 / settings.blocks) for _ in range(settings.blocks)
        )
        self.last_norm = nn.LayerNorm(width, eps=1e-6)
        self.out = nn.Linear(width, self.n_fft + 2)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        self.apply(_initialise)

    def sites(self) -> list[Site]:
        return sites_of(self.blocks)

    def _estimates(
        self,
        states: Float[Tensor, "b t d"],
        degraded: Float[Tensor, "b s"] | None,
        generator: torch.Generator | None,
        steps: int | None,
    ) -> list[Float[Tensor, "b m"]]:
        x = self.enter(states).unflatten(-1, (self.repeat, -1)).flatten(1, 2)
        x = self.first_norm(self.embed(x.transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        log_size, phase = self.out(self.last_norm(x)).float().transpose(1, 2).chunk(2, dim=1)
        # No waveform within full scale has a bin above this: the sum of the window.
        size = log_size.clamp(max=math.log(self.n_fft / 2)).exp()
        with torch.autocast(x.device.type, enabled=False):
            made = torch.istft(
                torch.polar(size, phase),
                self.n_fft,
                self.stride,
                self.n_fft,
                self.window,
                center=True,  # frame i about sample i * stride, as an encoder's frames are about theirs
                length=x.shape[1] * self.stride,
            )
        return [made]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
