"""Judges of waveforms for adversarial training: several scales (MelGAN) and several periods (HiFi-GAN).

    judge     max(0, 1 - D(real)) + max(0, 1 + D(made))          (hinge)
    maker     max(0, 1 - D(made)) + 10 * mean |features of real - features of made|

as WaveFit (arXiv:2210.01029) trains with scales and Miipher-2 with both. Scales after MelGAN
(arXiv:1910.06711), periods after HiFi-GAN (arXiv:2010.05646). Judges only train; they are no part of a saved
adapter.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


class Judgement(NamedTuple):
    """What one judge made of a batch: a score for each place (high is real), and all layers before it."""

    score: Tensor
    features: list[Tensor]


class ScaleJudge(nn.Module):
    """Looks at the waveform through ever wider strided, grouped convolutions."""

    def __init__(self, channels: int, layers: int = 4, stride: int = 4, most: int = 1024):
        super().__init__()
        widths = [min(channels * stride**i, most) for i in range(layers + 1)]
        self.layers = nn.ModuleList([weight_norm(nn.Conv1d(1, channels, 15, padding=7))])
        for before, after in pairwise(widths):
            groups = max(before // 4, 1)
            self.layers.append(
                weight_norm(
                    nn.Conv1d(before, after, 10 * stride + 1, stride, padding=5 * stride, groups=groups)
                )
            )
        self.layers.append(weight_norm(nn.Conv1d(widths[-1], widths[-1], 5, padding=2)))
        self.out = weight_norm(nn.Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, waveform: Float[Tensor, "b s"]) -> Judgement:
        return _judge(waveform[:, None], self.layers, self.out)


class PeriodJudge(nn.Module):
    """Looks at every `period`-th sample: the waveform in rows of so many, convolved along the columns."""

    def __init__(self, period: int, channels: int, layers: int = 4, most: int = 1024):
        super().__init__()
        self.period = period
        widths = [1, *(min(channels * 2**i, most) for i in range(layers + 1))]
        self.layers = nn.ModuleList()
        for i, (before, after) in enumerate(pairwise(widths)):
            stride = 3 if i < layers else 1
            self.layers.append(weight_norm(nn.Conv2d(before, after, (5, 1), (stride, 1), padding=(2, 0))))
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Float[Tensor, "b s"]) -> Judgement:
        rows = F.pad(waveform, (0, -waveform.shape[-1] % self.period))
        return _judge(rows.unflatten(-1, (-1, self.period))[:, None], self.layers, self.out)


class Discriminators(nn.Module):
    """All judges: so many scales, each half the rate of the one before, and one for each period.

    >>> judges = Discriminators()                                                        # doctest: +SKIP
    >>> judge_loss(judges(clean), judges(made.detach()))        # a step of the judges     # doctest: +SKIP
    >>> real, fake = judges(clean), judges(made)                # a step of the decoder    # doctest: +SKIP
    >>> maker_loss(fake) + 10 * feature_matching(real, fake)                             # doctest: +SKIP
    """

    def __init__(
        self,
        scales: int = 3,
        periods: Sequence[int] = (2, 3, 5, 7, 11, 13, 17, 19),
        scale_channels: int = 16,
        period_channels: int = 64,
    ):
        super().__init__()
        self.scales = nn.ModuleList(ScaleJudge(scale_channels) for _ in range(scales))
        self.periods = nn.ModuleList(PeriodJudge(period, period_channels) for period in periods)
        self.halve = nn.AvgPool1d(4, stride=2, padding=1, count_include_pad=False)

    def forward(self, waveform: Float[Tensor, "b s"]) -> list[Judgement]:
        judged = []
        coarse = waveform
        for judge in self.scales:
            judged.append(judge(coarse))
            coarse = self.halve(coarse)
        judged += [judge(waveform) for judge in self.periods]
        return judged


def judge_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """Hinge loss of the judges; give them `made` detached from the decoder."""
    losses = [(1 - r.score).relu().mean() + (1 + m.score).relu().mean() for r, m in _pairs(real, made)]
    return torch.stack(losses).mean()


def maker_loss(made: Sequence[Judgement]) -> Tensor:
    """What a decoder loses by being seen through; nothing once every score is that of a recording."""
    return torch.stack([(1 - m.score).relu().mean() for m in made]).mean()


def feature_matching(real: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """Mean distance of what the judges see in each layer; nothing flows into those of the recording."""
    distances = [
        torch.stack([F.l1_loss(b, a.detach()) for a, b in zip(r.features, m.features, strict=True)]).mean()
        for r, m in _pairs(real, made)
    ]
    return torch.stack(distances).mean()


def _pairs(real: Sequence[Judgement], made: Sequence[Judgement]) -> list[tuple[Judgement, Judgement]]:
    return list(zip(real, made, strict=True))


def _judge(x: Tensor, layers: nn.ModuleList, out: nn.Module) -> Judgement:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), 0.2)
        features.append(x)
    return Judgement(out(x), features)
