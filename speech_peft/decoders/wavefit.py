"""WaveFit: noise becomes speech by a fixed-point iteration (Koizumi et al., SLT 2022, arXiv:2210.01029).

    y_0 ~ noise,    y_{k+1} = G( y_k - F(y_k, c, k) ),    G(z) = z * sqrt(P_c / P_z)

F estimates the noise that is left (`wavegrad.py`); G gives z the power that the condition says. Each estimate
is detached before the next step, and the training loss is the mean over all of them: every step learns to
make the best of what it gets, so that fewer (or more) steps than in training can be taken later.

WaveFit's condition is a mel spectrogram, from which it takes the power (by a pseudo-inverse of the filter
bank) and the envelope of its initial noise (SpecGrad, arXiv:2203.16749). Here the condition is states, so a
linear layer reads the log-mel spectrum from them, and learns it from the clean waveform (`own_losses`). The
power is that of all frames of the stretch: a pause in it does not make the rest louder.

As in Miipher-2 (arXiv:2505.04457) states are repeated up to 100 a second in front of the network, in place of
learned transposed convolutions, and the film of the longest signals is dropped.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.mel import mel_filters
from ..errors import ConfigError
from ..registry import DECODERS
from .convnext import ConvNeXt
from .spectral import FLOOR, Resolution, magnitude, spectrum
from .waveform import DecoderConfig, WaveformDecoder
from .wavegrad import WaveGrad

CEPSTRUM = 24
"""Coefficients kept of the initial noise's log spectrum: the envelope without the pitch."""


@DECODERS.register("wavefit")
class WaveFit(DecoderConfig):
    """An iterative generator of waveforms from states alone."""

    sample_rate: PositiveInt = 24000
    steps: PositiveInt = 5
    """Of training, and of inference unless it says otherwise."""
    noise: Literal["specgrad", "white"] = "specgrad"
    """The start: noise with the envelope that the states tell, or without one."""
    factors: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (5, 4, 3, 2, 2)
    """By what each block upsamples; their product is the samples of a repeated state."""
    up: tuple[PositiveInt, ...] = (512, 512, 256, 128, 128)
    """Channels of these blocks."""
    down: tuple[PositiveInt, ...] = (128, 128, 256, 512)
    """Channels of the blocks that read the waveform, one fewer."""
    film: Literal["light", "full"] = "light"
    """`light` drops the link from the waveform at its full rate to the last block; `full` is WaveGrad's."""
    before: Annotated[int, Field(ge=0)] = 4
    """Blocks over the states before they are repeated (Miipher-2 has Conformers there)."""
    channels: PositiveInt = 512
    """Width of those blocks, and of the condition."""
    mels: PositiveInt = 128

    def build(self, dim: int, frame_rate: float) -> "WaveFitDecoder":
        return WaveFitDecoder(self, dim, frame_rate)


class WaveFitDecoder(WaveformDecoder):
    """See the file."""

    name = "wavefit"
    iterative = True
    filters: Float[Tensor, "m f"]
    inverse: Float[Tensor, "f m"]
    window: Float[Tensor, " w"]

    def __init__(self, settings: WaveFit, dim: int, frame_rate: float):
        super().__init__(settings, dim, frame_rate)
        self.steps, self.noise = settings.steps, settings.noise
        self.stride = math.prod(settings.factors)
        self.repeat, rest = divmod(self.hop, self.stride)
        if rest or not self.repeat:
            raise ConfigError(
                f"decoder.factors: blocks that make {self.stride} samples of a frame do not fit the "
                f"{self.hop} of a state at {settings.sample_rate} Hz; let their product divide {self.hop}"
            )
        width = settings.channels
        self.enter = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width))
        self.before = nn.Sequential(
            *(ConvNeXt(width, 3 * width, scale=1 / settings.before) for _ in range(settings.before))
        )
        self.to_mel = nn.Linear(width, self.repeat * settings.mels)
        self.generator = WaveGrad(
            width,
            settings.factors,
            settings.up,
            settings.down,
            steps=settings.steps,
            longest_film=settings.film == "full",
        )
        length = 4 * self.stride
        self.resolution = Resolution(2 ** math.ceil(math.log2(2 * length)), length, self.stride)
        filters = mel_filters(settings.sample_rate, self.resolution.n_fft, settings.mels)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("inverse", torch.linalg.pinv(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(length), persistent=False)

    def _estimates(
        self,
        states: Float[Tensor, "b t d"],
        degraded: Float[Tensor, "b s"] | None,
        generator: torch.Generator | None,
        steps: int | None,
    ) -> list[Float[Tensor, "b m"]]:
        condition, log_mel = self._read(states)
        sizes = self.magnitudes(log_mel)
        with torch.no_grad():
            start = self.initial_noise(sizes, generator)
        repeated = condition.repeat_interleave(self.repeat, dim=1)
        return self.refine(start, repeated, power(sizes), steps or self.steps)

    def refine(
        self,
        y: Float[Tensor, "b m"],
        condition: Float[Tensor, "b u c"],
        target: Float[Tensor, " b"],
        steps: int,
    ) -> list[Float[Tensor, "b m"]]:
        """The estimate after each step from `y`; past the steps of training the last one is repeated."""
        made = []
        for k in range(steps):
            y = self.with_power(y - self.generator(y, condition, min(k, self.steps - 1)), target)
            made.append(y)
            # No gradient through earlier steps: each has its own loss, and a chain of them explodes.
            y = y.detach()
        return made

    def with_power(self, z: Float[Tensor, "b m"], target: Float[Tensor, " b"]) -> Float[Tensor, "b m"]:
        """G: `z` scaled so that the mean power of its spectrum is `target`."""
        z = z.float()
        gain = (target / (power(magnitude(self._spectrum(z))) + 1e-12)).sqrt()
        return z * gain[:, None]

    def initial_noise(
        self, sizes: Float[Tensor, "b f u"], generator: torch.Generator | None
    ) -> Float[Tensor, "b m"]:
        """White noise, or noise through a minimum-phase filter with the envelope of `sizes`."""
        shape = (sizes.shape[0], sizes.shape[-1] * self.stride)
        # Drawn where the generator lives: the same seed gives the same noise on every device.
        device = generator.device if generator is not None else sizes.device
        noise = torch.randn(shape, generator=generator, device=device).to(sizes.device)
        if self.noise == "white":
            return noise
        with torch.autocast(sizes.device.type, enabled=False):
            n_fft, length, hop = self.resolution
            shaped = self._spectrum(noise) * minimum_phase_envelope(sizes)
            start = torch.istft(shaped, n_fft, hop, length, self.window, center=True, length=shape[1])
        return self.with_power(start, power(sizes))  # the filter's gain depends on the window

    def own_losses(self, states: Float[Tensor, "b t d"], clean: Float[Tensor, "b n"]) -> dict[str, Tensor]:
        """How far the log-mel spectrum that is read from the states is from that of the clean waveform."""
        log_mel = self._read(states)[1]
        missing = log_mel.shape[-1] * self.stride - clean.shape[-1]
        wanted = (self.filters @ magnitude(self._spectrum(F.pad(clean, (0, missing))))).clamp(min=FLOOR).log()
        # Frames of a clip's end that lie beyond the given waveform are not known to be silent.
        known = math.ceil(clean.shape[-1] / self.stride)
        return {"log_mel": (log_mel[..., :known] - wanted[..., :known]).abs().mean()}

    def _read(self, states: Float[Tensor, "b t d"]) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b m u"]]:
        """The condition, and the log-mel spectrum of each repeated frame."""
        condition = self.before(self.enter(states))
        log_mel = self.to_mel(condition).float().unflatten(-1, (self.repeat, -1)).flatten(1, 2)
        return condition, log_mel.transpose(1, 2)

    def magnitudes(self, log_mel: Float[Tensor, "b m u"]) -> Float[Tensor, "b f u"]:
        """Of the spectrum behind a log-mel spectrum, as well as it can be told."""
        with torch.autocast(log_mel.device.type, enabled=False):
            loudest = math.log(self.resolution.window)  # no waveform within full scale is louder
            return (self.inverse @ log_mel.clamp(max=loudest).exp()).clamp(min=FLOOR)

    def _spectrum(self, waveform: Float[Tensor, "b m"]) -> Float[Tensor, "b f u"]:
        """One frame for each repeated state: the last one, centred at the end, is left out as in WaveFit."""
        return spectrum(waveform, self.resolution, self.window)[..., : waveform.shape[-1] // self.stride]


def power(sizes: Float[Tensor, "b f u"]) -> Float[Tensor, " b"]:
    """Mean power of the bins of each spectrogram."""
    return sizes.square().mean((1, 2))


def minimum_phase_envelope(sizes: Float[Tensor, "b f u"]) -> Float[Tensor, "b f u"]:
    """The smooth envelope of each spectrum, as the filter of least delay that has it (complex)."""
    log = sizes.clamp(min=FLOOR).log()
    whole = 2 * (log.shape[1] - 1)
    cepstrum = torch.fft.irfft(log, n=whole, dim=1)
    # A filter is of minimum phase when its cepstrum is zero for negative times: those are folded over.
    folded = torch.zeros_like(cepstrum)
    folded[:, 0] = cepstrum[:, 0]
    folded[:, 1:CEPSTRUM] = 2 * cepstrum[:, 1:CEPSTRUM]
    return torch.fft.rfft(folded, dim=1).exp()
