"""What a waveform lacks of another, measured on spectra: the losses that waveform decoders learn from.

    spectral convergence   |S - S'| / |S|            (Frobenius norms)
    log magnitude          mean |log S - log S'|

at several resolutions at once (Parallel WaveGAN, arXiv:1910.11480), as WaveFit (arXiv:2210.01029) and
Miipher-2 use them; mel distances as Vocos (arXiv:2306.00814) does; and the compressed complex spectrum of
speech enhancement (arXiv:2009.12286), which minds phase and is what a mask learns best from.
Zeros at the end of both waveforms add nothing to any sum: padding is harmless once it is zero in both.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..backbones.mel import mel_filters

# Below this a magnitude counts as silent. Higher than float32 needs: convergence and logarithm both make too
# much of what nobody hears.
FLOOR = 1e-5


class Resolution(NamedTuple):
    """Of a short-time spectrum, in samples."""

    n_fft: int
    window: int
    hop: int


WAVEFIT = (Resolution(512, 360, 80), Resolution(1024, 900, 150), Resolution(2048, 1800, 300))
"""The resolutions of WaveFit, at 24 kHz."""
MIIPHER2 = (Resolution(512, 240, 50), Resolution(1024, 600, 120), Resolution(2048, 1200, 240))
"""Those of Miipher-2 and Parallel WaveGAN, at 24 kHz."""


def resolutions_at(sample_rate: int, published: Sequence[Resolution] = MIIPHER2) -> tuple[Resolution, ...]:
    """Resolutions published for 24 kHz, as long in seconds at another rate."""
    return tuple(
        Resolution(*(max(1, round(samples * sample_rate / 24000)) for samples in one)) for one in published
    )


def spectrum(
    waveform: Float[Tensor, "b s"], resolution: Resolution, window: Float[Tensor, " w"] | None = None
) -> Float[Tensor, "b f t"]:
    """The complex short-time spectrum; frame i is centred at sample `i * hop`, and silence lies around."""
    n_fft, length, hop = resolution
    if window is None:
        window = torch.hann_window(length, device=waveform.device)
    with torch.autocast(waveform.device.type, enabled=False):
        return torch.stft(
            waveform.float(),
            n_fft,
            hop_length=hop,
            win_length=length,
            window=window,
            center=True,
            pad_mode="constant",  # a clip may be shorter than the half window that reflection needs
            return_complex=True,
        )


def magnitude(spectra: Tensor) -> Tensor:
    """Of a complex spectrum, never less than `FLOOR`, where a root would have no slope."""
    return (torch.view_as_real(spectra).square().sum(-1) + FLOOR**2).sqrt()


def spectral_convergence(made: Tensor, wanted: Tensor) -> Tensor:
    """The share of `wanted` that `made` misses, over the whole batch: 0 is perfect, silence gets 1."""
    return torch.linalg.vector_norm(wanted - made) / (torch.linalg.vector_norm(wanted) + FLOOR)


class MultiResolutionStft(nn.Module):
    """Spectral convergence and log-magnitude distance, each the mean over resolutions; weigh them 2.5 each.

    >>> losses = MultiResolutionStft(24000)(made, clean)                           # doctest: +SKIP
    >>> loss = 2.5 * losses["convergence"] + 2.5 * losses["log_magnitude"]         # doctest: +SKIP
    """

    def __init__(self, sample_rate: int, published: Sequence[Resolution] = MIIPHER2):
        super().__init__()
        self.resolutions = resolutions_at(sample_rate, published)

    def forward(self, made: Float[Tensor, "b s"], clean: Float[Tensor, "b s"]) -> dict[str, Tensor]:
        convergence, distance = [], []
        for resolution in self.resolutions:
            m, c = (magnitude(spectrum(waveform, resolution)) for waveform in (made, clean))
            convergence.append(spectral_convergence(m, c))
            distance.append((m.log() - c.log()).abs().mean())
        return {
            "convergence": torch.stack(convergence).mean(),
            "log_magnitude": torch.stack(distance).mean(),
        }


class MelDistance(nn.Module):
    """Mean distance of log-mel spectra over several resolutions (n_fft = window = 4 hops)."""

    def __init__(self, sample_rate: int, bands: Sequence[int] = (20, 80, 160)):
        super().__init__()
        # Bands that the lowest bins would leave empty carry nothing: windows grow with their number.
        self.resolutions = [Resolution(n, n, n // 4) for n in (512, 1024, 2048)[: len(bands)]]
        for i, (resolution, count) in enumerate(zip(self.resolutions, bands, strict=True)):
            self.register_buffer(
                f"filters_{i}", mel_filters(sample_rate, resolution.n_fft, count), persistent=False
            )

    def forward(self, made: Float[Tensor, "b s"], clean: Float[Tensor, "b s"]) -> Tensor:
        distances = []
        for i, resolution in enumerate(self.resolutions):
            filters: Tensor = getattr(self, f"filters_{i}")
            m, c = (
                (filters @ magnitude(spectrum(waveform, resolution))).clamp(min=FLOOR).log()
                for waveform in (made, clean)
            )
            distances.append((m - c).abs().mean())
        return torch.stack(distances).mean()


class CompressedSpectrum(nn.Module):
    """Mean squared distance of spectra of magnitudes raised to `power`: 0.7 without phase, 0.3 with it.

    Compression lets quiet consonants count beside loud vowels. Each clip is divided by the level of the clean
    one, so that the loss does not depend on how loud the recording was.
    """

    def __init__(self, sample_rate: int, power: float = 0.3, with_phase: float = 0.3):
        super().__init__()
        self.resolution = Resolution(*(round(sample_rate * seconds) for seconds in (0.032, 0.032, 0.008)))
        self.power, self.with_phase = power, with_phase

    def forward(self, made: Float[Tensor, "b s"], clean: Float[Tensor, "b s"]) -> Tensor:
        level = clean.float().square().mean(-1, keepdim=True).sqrt().clamp(min=1e-4)
        m, c = (spectrum(waveform / level, self.resolution) for waveform in (made, clean))
        size_m, size_c = magnitude(m), magnitude(c)
        plain = (size_m**self.power - size_c**self.power).square().mean()
        phased = m * size_m ** (self.power - 1) - c * size_c ** (self.power - 1)
        return (1 - self.with_phase) * plain + self.with_phase * torch.view_as_real(phased).square().sum(
            -1
        ).mean()


def averaged(
    estimates: Sequence[Float[Tensor, "b n"]], loss: Callable[[Float[Tensor, "b n"]], Tensor]
) -> Tensor:
    """The mean loss over all estimates of a decoder: what makes the number of steps free at inference."""
    return torch.stack([loss(estimate) for estimate in estimates]).mean()
