"""Whisfusion's decoding exactly as published (arXiv:2508.07048), to be measured against.

K texts of 256 places each in a batch, whatever the length; in each step every text is masked anew at random,
keys and values of the sound are made again for each of them, and the likeliest token fills every mask. The
surest text, by its mean probability, is chosen. Only the masks are those of `sample.masks`, so that both ways
fill the same texts.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .masked import MaskedDecoder
from .sample import PUBLISHED, forbidden, masks

PLACES = 256


@torch.inference_mode()
def decode(
    decoder: MaskedDecoder,
    states: Float[Tensor, "1 t d"],
    candidates: int = 15,
    ratios: tuple[float, ...] = PUBLISHED,
    places: int = PLACES,
    seed: int = 0,
) -> tuple[Int[Tensor, "k n"], int]:
    """All candidates of one clip, and the place of the one that is chosen."""
    device = states.device
    tokens = torch.full((candidates, places), decoder.end, device=device)
    sure = torch.zeros(candidates, places, device=device)
    bias = forbidden(decoder, device)
    for step, ratio in enumerate(ratios):
        masked = masks(1, candidates, places, ratio, seed, step)[0].to(device)
        memory = decoder.memory(states.expand(candidates, -1, -1))
        scores = decoder(tokens, masked, memory).float()
        shares, guess = (scores if bias is None else scores + bias).softmax(-1).max(-1)
        tokens, sure = torch.where(masked, guess, tokens), shares
    text = (tokens != decoder.end).float()
    mean = (sure * text).sum(1) / text.sum(1).clamp(min=1)
    return tokens, int(mean.argmax())
