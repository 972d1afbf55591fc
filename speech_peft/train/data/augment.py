"""What training clips are heard as, instead of as recorded: mixed, rotated in time, without some stripes.

Every function takes the generator of its randomness, so that a resumed run repeats it.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...backbones.base import Features
from ...recipe.parts import SpecAugmentConfig


@dataclass(frozen=True)
class Spectrogram:
    """How features lie in their tensor."""

    axes: tuple[int, int] | None
    """Of time and frequency: (1, 2) or (2, 1)."""
    stacked: int = 1
    """Frames that lie one behind the other along the frequency axis."""


def shift(
    audio: Float[Tensor, "b s"], lengths: Int[Tensor, " b"], most: int, generator: torch.Generator
) -> Float[Tensor, "b s"]:
    """Each clip rotated by up to `most` samples, either way, within its own length."""
    by = torch.randint(-most, most + 1, (len(audio),), generator=generator)
    return rotated(audio, lengths, by.to(audio.device))


def rotated(x: Float[Tensor, "b n ..."], lengths: Int[Tensor, " b"], by: Int[Tensor, " b"]) -> Tensor:
    """Each row rotated by so many places, within its own length."""
    position = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    source = (position - by[:, None]) % lengths.clamp(min=1)[:, None]
    rows = torch.arange(len(x), device=x.device)[:, None]
    return x[rows, source.where(position < lengths[:, None], position)]


def mixup(
    audio: Float[Tensor, "b s"],
    lengths: Int[Tensor, " b"],
    target: Float[Tensor, "b c"],
    alpha: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b s"], Int[Tensor, " b"], Float[Tensor, "b c"]]:
    """Each clip mixed with another of the batch, as are their targets (Zhang et al. 2018, arXiv:1710.09412).

    The share of a clip is drawn from Beta(alpha, alpha); a mix is as long as the longer of the two.
    """
    order = torch.randperm(len(audio), generator=generator).to(audio.device)
    share = _beta(alpha, len(audio), generator).to(audio.device)[:, None]
    return (
        share * audio + (1 - share) * audio[order],
        torch.maximum(lengths, lengths[order]),
        share.to(target) * target + (1 - share).to(target) * target[order],
    )


def _beta(alpha: float, size: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    # torch's own Beta takes no generator.
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, size)).float()


def spec_augment(
    features: Features,
    heard: Float[Tensor, " b"],
    shape: Spectrogram,
    config: SpecAugmentConfig,
    generator: torch.Generator,
) -> Features:
    """Stripes of time and of frequency set to the clip's mean (Park et al. 2019, arXiv:1904.08779).

    `heard` is the share of the padded width that is the clip's own. However many stripes there are, they
    cover at most half of a clip's time and half of its bins.
    """
    values, axes, stacked = features.values, shape.axes or (1, 2), shape.stacked
    frames, bins = values.shape[axes[0]], values.shape[axes[1]] // stacked
    extent = (heard.cpu() * frames).ceil().long().clamp(1, frames)
    in_time = _stripes(extent, frames, config.time_masks, config.time_width, generator)
    in_bins = _stripes(torch.full_like(extent, bins), bins, config.freq_masks, config.freq_width, generator)
    own = torch.arange(frames)[None] < extent[:, None]
    if axes == (1, 2):
        in_time, in_bins, own = in_time[:, :, None], in_bins.repeat(1, stacked)[:, None], own[:, :, None]
    else:
        in_time, in_bins, own = in_time[:, None], in_bins.repeat(1, stacked)[:, :, None], own[:, None]
    own = own.to(values.device).expand_as(values)
    mean = values.where(own, 0).sum((1, 2), keepdim=True) / own.sum((1, 2), keepdim=True)
    hidden = (in_time | in_bins).to(values.device) & own
    return replace(features, values=torch.where(hidden, mean, values))


def _stripes(
    extent: Int[Tensor, " b"], size: int, count: int, width: int, generator: torch.Generator
) -> Bool[Tensor, "b n"]:
    """True inside `count` stripes, each somewhere in the first `extent` places and up to `width` wide."""
    hidden = torch.zeros(len(extent), size, dtype=torch.bool)
    place = torch.arange(size)[None]
    for _ in range(count):
        widest = (extent // (2 * count)).clamp(max=width)
        wide = (torch.rand(len(extent), generator=generator) * (widest + 1)).long()
        start = (torch.rand(len(extent), generator=generator) * (extent - wide + 1)).long()
        hidden |= (place >= start[:, None]) & (place < (start + wide)[:, None])
    return hidden
