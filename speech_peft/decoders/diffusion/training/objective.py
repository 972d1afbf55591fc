"""What a masked decoder learns from a text and its sound: cross entropy where tokens are masked."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..masked import MaskedDecoder, Memory
from . import corrupt

Teacher = Callable[[Int[Tensor, "b n"], Bool[Tensor, "b n"]], Float[Tensor, "w v"]]
"""Texts and wanted places to what the autoregressive decoder gives the tokens there, as logits."""


@dataclass(frozen=True)
class Objective:
    """How texts are corrupted, and what counts how much."""

    high: float = 0.7
    high_share: float = 0.5
    left: float = 0.0
    """Share of the texts that are masked from some place on."""
    own: float = 0.0
    """Share of the batches in which the decoder sees its own half-filled texts."""
    ends: float = 1.0
    """Weight of the ends behind the first: they say how long a text is, and nothing else."""
    smoothing: float = 0.0
    distil: float = 0.0
    """Weight of the teacher's distributions, where its likeliest token is the text's."""

    def loss(
        self,
        decoder: MaskedDecoder,
        tokens: Int[Tensor, "b n"],
        memory: Memory,
        generator: torch.Generator,
        teacher: Teacher | None = None,
    ) -> tuple[Tensor, float, Float[Tensor, "w v"]]:
        """The summed loss, the weight it is summed over, and the logits where tokens were wanted."""
        ratio = corrupt.ratios(len(tokens), generator, self.high, self.high_share)
        seen = corrupt.mask(tokens, ratio, generator)
        if self.left:
            seen = corrupt.onward(seen, decoder.end, self.left, generator)
        if self.own and float(torch.rand((), generator=generator)) < self.own:
            share = torch.rand(len(tokens), generator=generator)
            seen = corrupt.own_fill(decoder, seen, memory, share)
        hidden = decoder.hidden(seen.tokens, seen.masked, memory)[seen.wanted]
        logits, truth = decoder.scores(hidden).float(), tokens[seen.wanted]
        weight = self._weights(decoder, tokens)[seen.wanted]
        each = F.cross_entropy(logits, truth, reduction="none", label_smoothing=self.smoothing)
        if self.distil and teacher is not None:
            each = each + self.distil * _apart(logits, teacher(tokens, seen.wanted).float(), truth)
        return (each * weight).sum(), float(weight.sum()), logits

    def _weights(self, decoder: MaskedDecoder, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        after = (tokens == decoder.end).cumsum(1) > 1
        return torch.where(after, self.ends, 1.0)


def _apart(logits: Tensor, teacher: Tensor, truth: Tensor) -> Float[Tensor, " w"]:
    """KL(teacher || decoder) where the teacher would have written the truth, else 0."""
    target = teacher.log_softmax(-1)
    apart = F.kl_div(logits.log_softmax(-1), target, reduction="none", log_target=True).sum(-1)
    return apart * (teacher.argmax(-1) == truth)
