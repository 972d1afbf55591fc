"""Drafts for Whisper's own decoder by a masked one: all of a text in a pass or a few."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..words.verified import Drafts
from .engine import MaskedEngine
from .masked import MaskedDecoder, Memory, bucket
from .sample import forbidden


class MaskedDrafter:
    """What an engine fills is the draft; where nothing of it is left, what follows is filled in one pass."""

    def __init__(self, engine: MaskedEngine):
        self.engine = engine

    def drafts(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None,
        prompt: Int[Tensor, "b p"],
        limits: Int[Tensor, " b"],
    ) -> Drafts:
        decoder = self.engine.decoder
        memory, filled = self.engine.filled(states, mask, prompt, limits)

        def onward(clips: Sequence[int], texts: Sequence[Sequence[int]]) -> list[list[int]]:
            return go_on(decoder, memory.picked(torch.tensor(clips, device=states.device)), texts)

        rows = [with_end(decoder, row) for row in filled.tokens[:, 0].tolist()]
        return Drafts(rows, filled.passes.tolist(), onward)


def with_end(decoder: MaskedDecoder, row: Sequence[int]) -> list[int]:
    """A text and its end."""
    return [*decoder.until_end(row), decoder.end]


def go_on(decoder: MaskedDecoder, memory: Memory, texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """What the masked decoder takes to follow each of these beginnings, in one pass."""
    device = memory.keys[0].device
    width = min(bucket(max(map(len, texts)) + bucket(1)), decoder.room)
    tokens = torch.full((len(texts), width), decoder.end, device=device)
    masked = torch.ones(tokens.shape, dtype=torch.bool, device=device)
    for i, text in enumerate(texts):
        count = min(len(text), width)
        tokens[i, :count] = torch.tensor(text[:count], device=device)
        masked[i, :count] = False
    scores = decoder(tokens, masked, memory)
    if (bias := forbidden(decoder, device)) is not None:
        scores = scores + bias
    guesses = scores.argmax(-1).tolist()
    return [with_end(decoder, guess[len(text) :]) for guess, text in zip(guesses, texts, strict=True)]
