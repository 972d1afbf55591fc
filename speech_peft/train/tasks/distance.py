"""How far what was made is from what is clean: states frame by frame, waveforms by their spectra."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...decoders.spectral import CompressedSpectrum, MelDistance, MultiResolutionStft
from ...recipe.tasks import FeatureLosses, WaveformLosses

QUIET = 1e-3
"""Noise this far below the speech (-30 dB) counts as none."""


def feature_distance(
    made: Float[Tensor, "b t d"],
    clean: Float[Tensor, "b t d"],
    mask: Bool[Tensor, "b t"],
    weights: FeatureLosses,
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """The loss of Miipher-2 for each clip, L1 + squared L2 + spectral convergence, and the last term alone.

    Means over the frames that hold sound.
    """
    difference, clean = ((x * mask[..., None]).float() for x in (made - clean, clean))
    size = (mask.sum(1) * clean.shape[-1]).clamp(min=1)
    # The norm's slope at zero is zero, the root's is not a number: clips left clean begin there.
    norm, wanted = (torch.linalg.vector_norm(x, dim=(1, 2)) for x in (difference, clean))
    convergence = norm / wanted.clamp(min=1e-6)
    l1, l2 = difference.abs().sum((1, 2)) / size, difference.square().sum((1, 2)) / size
    return weights.l1 * l1 + weights.l2 * l2 + weights.convergence * convergence, convergence


class WaveformDistance(nn.Module):
    """The weighed losses of a waveform; those of weight 0 are not computed."""

    def __init__(self, weights: WaveformLosses, sample_rate: int):
        super().__init__()
        self.weights = weights
        self.stft = MultiResolutionStft(sample_rate)
        self.mel = MelDistance(sample_rate) if weights.mel else None
        self.compressed = CompressedSpectrum(sample_rate) if weights.compressed else None

    def forward(self, made: Float[Tensor, "b n"], clean: Float[Tensor, "b n"]) -> Tensor:
        weights, total = self.weights, made.new_zeros(())
        if weights.convergence or weights.log_magnitude:
            stft = self.stft(made, clean)
            total = total + weights.convergence * stft["convergence"]
            total = total + weights.log_magnitude * stft["log_magnitude"]
        if self.mel is not None:
            total = total + weights.mel * self.mel(made, clean)
        if self.compressed is not None:
            total = total + weights.compressed * self.compressed(made, clean)
        if weights.sdr:
            total = total + weights.sdr * noise_to_speech(made, clean)
        return total


def noise_to_speech(made: Float[Tensor, "b n"], clean: Float[Tensor, "b n"]) -> Tensor:
    """log10 of the energy of what is wrong over that of what is clean: 0 for silence, -1 at 10 dB of SDR.

    Clips in which nothing is said have no such ratio and are left out.
    """
    wrong, speech = (made - clean).float().square().sum(-1), clean.float().square().sum(-1)
    spoken = speech > 0
    speech = speech.clamp(min=1e-8)
    return ((wrong / speech + QUIET).log10() * spoken).sum() / spoken.sum().clamp(min=1)
