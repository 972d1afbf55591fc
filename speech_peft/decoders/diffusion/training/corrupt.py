"""Texts as a masked decoder sees them in training: which places are masked, and what stands at the others.

Half of the texts are masked at any ratio, half at a high one, as sampling begins with nothing but masks
(Whisfusion trains on U(0.7, 1) alone, SMDM on U(0, 1)). `onward` masks what stands to the right of a place;
`own_fill` shows the decoder its own half-filled texts, wrong words included, which it is to see through
(MDM-ASR, arXiv:2602.18952).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..masked import MaskedDecoder, Memory


@dataclass(frozen=True)
class Seen:
    """Texts with places masked, and where what stands there is to be told."""

    tokens: Int[Tensor, "b n"]
    masked: Bool[Tensor, "b n"]
    wanted: Bool[Tensor, "b n"]


def ratios(
    count: int, generator: torch.Generator, high: float = 0.7, share: float = 0.5
) -> Float[Tensor, " b"]:
    """How much of each text is masked: U(0, 1), and of a share of the texts U(`high`, 1)."""
    drawn = torch.rand(count, generator=generator)
    which = torch.rand(count, generator=generator) < share
    return torch.where(which, high + (1 - high) * drawn, drawn)


def mask(tokens: Int[Tensor, "b n"], ratio: Float[Tensor, " b"], generator: torch.Generator) -> Seen:
    """Each place by itself with its text's ratio; one at least."""
    drawn = torch.rand(tokens.shape, generator=generator)
    masked = drawn <= torch.maximum(ratio[:, None], drawn.amin(1, keepdim=True))
    masked = masked.to(tokens.device)
    return Seen(tokens, masked, masked)


def onward(seen: Seen, end: int, share: float, generator: torch.Generator) -> Seen:
    """The same, but a share of the texts is masked from some place on and whole before it.

    So texts look while they are written from left to right; behind the first `end` no place is drawn.
    """
    tokens = seen.tokens
    count, places = tokens.shape
    which, at = torch.rand(2, count, generator=generator).to(tokens.device)
    ends = (tokens == end).cumsum(1)
    length = (ends == 0).sum(1).add(1).clamp(max=places)
    behind = torch.arange(places, device=tokens.device) >= (at * length).long()[:, None]
    masked = torch.where((which < share)[:, None], behind, seen.masked)
    return Seen(tokens, masked, masked)


@torch.no_grad()
def own_fill(decoder: MaskedDecoder, seen: Seen, memory: Memory, share: Float[Tensor, " b"]) -> Seen:
    """The same with a share of what was masked filled in by the decoder, where it is surest of itself."""
    probability, guess = decoder(seen.tokens, seen.masked, memory).float().softmax(-1).max(-1)
    order = probability.masked_fill(~seen.masked, -1.0).argsort(dim=1, descending=True).argsort(dim=1)
    filled = seen.masked & (order < (share.to(order.device) * seen.masked.sum(1))[:, None])
    tokens = torch.where(filled, guess, seen.tokens)
    return Seen(tokens, seen.masked & ~filled, seen.wanted)
