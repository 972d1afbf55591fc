"""The network of WaveGrad (Chen et al., arXiv:2009.00713): a waveform, its condition and a step to noise.

One stack reads the waveform at ever lower rates, the other goes from the condition up to the waveform's rate,
and on the way is shifted and scaled by what the first saw at that rate (FiLM).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

FIRST = 32
"""Channels of the waveform at its full rate."""
Film = tuple[Tensor, Tensor]


class WaveGrad(nn.Module):
    """The noise in `y` (b, m), given a condition (b, u, c) with m = u * product of the factors."""

    def __init__(
        self,
        condition: int,
        factors: Sequence[int],
        up: Sequence[int],
        down: Sequence[int],
        *,
        steps: int,
        longest_film: bool,
    ):
        super().__init__()
        if not len(factors) == len(up) == len(down) + 1:
            raise ValueError(
                f"{len(factors)} factors need as many up channels and {len(factors) - 1} of down"
            )
        self.read = _conv(1, FIRST, 5)
        self.down = nn.ModuleList(
            Down(a, b, f) for (a, b), f in zip(pairwise((FIRST, *down)), reversed(factors[1:]), strict=True)
        )
        self.up = nn.ModuleList(
            Up(a, b, f, (1, 2, 4, 8) if i < 3 else (1, 2, 1, 2))
            for i, ((a, b), f) in enumerate(zip(pairwise((condition, *up)), factors, strict=True))
        )
        links = list(zip((FIRST, *down), reversed(up), strict=True))
        if not longest_film:
            links = links[1:]
        self.film = nn.ModuleList(FilmOf(seen, made, steps) for seen, made in links)
        self.write = _conv(up[-1], 1, 3)

    def forward(
        self, y: Float[Tensor, "b m"], condition: Float[Tensor, "b u c"], step: int
    ) -> Float[Tensor, "b m"]:
        seen = [self.read(y[:, None])]
        for block in self.down:
            seen.append(block(seen[-1]))
        films: list[Film | None] = [None] * (len(seen) - len(self.film))
        films += [film(x, step) for film, x in zip(self.film, seen[len(films) :], strict=True)]
        x = condition.transpose(1, 2)
        for block, film in zip(self.up, reversed(films), strict=True):
            x = block(x, film)
        return self.write(x)[:, 0]


class FilmOf(nn.Module):
    """A shift and a scale for each channel and moment, of what was seen there and of the step."""

    where: Float[Tensor, "k c"]

    def __init__(self, seen: int, made: int, steps: int):
        super().__init__()
        self.enter = nn.Conv1d(seen, seen, 3, padding=1)
        self.place = nn.Linear(seen, seen)
        self.shift, self.scale = (nn.Conv1d(seen, made, 3, padding=1) for _ in range(2))
        for layer in (self.enter, self.place, self.shift, self.scale):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.register_buffer("where", _sinusoids(steps, seen), persistent=False)

    def forward(self, x: Float[Tensor, "b c m"], step: int) -> Film:
        x = F.leaky_relu(self.enter(x), 0.2) + self.place(self.where[step])[:, None]
        return self.shift(x), self.scale(x)


class Up(nn.Module):
    """Four convolutions at `factor` times the rate, two residual pairs; film before each but the first."""

    def __init__(self, before: int, after: int, factor: int, dilations: Sequence[int]):
        super().__init__()
        self.factor = factor
        self.past = _conv(before, after, 1)
        widths = (before, after, after, after)
        self.layers = nn.ModuleList(_conv(w, after, 3, d) for w, d in zip(widths, dilations, strict=True))

    def forward(self, x: Float[Tensor, "b c u"], film: Film | None) -> Float[Tensor, "b e v"]:
        first, second, third, fourth = self.layers
        higher = x.repeat_interleave(self.factor, dim=-1)
        y = first(F.leaky_relu(higher, 0.2))
        y = second(F.leaky_relu(_filmed(y, film), 0.2)) + self.past(higher)
        z = third(F.leaky_relu(_filmed(y, film), 0.2))
        return y + fourth(F.leaky_relu(_filmed(z, film), 0.2))


class Down(nn.Module):
    """Three convolutions at a `factor`-th of the rate beside a strided one."""

    def __init__(self, before: int, after: int, factor: int):
        super().__init__()
        kernel = factor // 2 * 2 + 1
        self.past = nn.Sequential(_conv(before, before, 1), _conv(before, after, kernel, stride=factor))
        self.lower = _conv(before, before, kernel, stride=factor)
        widths = (before, before, before, after)
        self.layers = nn.ModuleList(
            _conv(a, b, 3, d) for (a, b), d in zip(pairwise(widths), (1, 2, 4), strict=True)
        )

    def forward(self, x: Float[Tensor, "b c m"]) -> Float[Tensor, "b e n"]:
        y = self.lower(x)
        for layer in self.layers:
            y = layer(F.leaky_relu(y, 0.2))
        return y + self.past(x)


def _filmed(x: Tensor, film: Film | None) -> Tensor:
    if film is None:
        return x
    shift, scale = film
    return shift + scale * x


def _conv(before: int, after: int, kernel: int, dilation: int = 1, stride: int = 1) -> nn.Conv1d:
    layer = nn.Conv1d(before, after, kernel, stride, dilation * (kernel // 2), dilation)
    nn.init.orthogonal_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _sinusoids(steps: int, width: int) -> Float[Tensor, "k c"]:
    """Where in the iteration each step is, spread over the range that WaveGrad's noise levels take."""
    half = (width + 1) // 2
    angle = torch.linspace(0, 5000, steps)[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
    return torch.cat((angle.sin(), angle.cos()), -1)[:, :width]
