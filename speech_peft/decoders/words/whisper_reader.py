"""Whisper's stock decoder, read layer by layer.

The layers are called one by one, as the stock forward does, for two reasons: adapters hooked onto them run,
and cross attention can be told which states are padding, so that clips of every length decode in one batch.
(The stock forward takes no such mask.)
"""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ...core.current import going_on_with

if TYPE_CHECKING:
    from ...backbones.whisper import Generation, Whisper


class Reader:
    """The decoder over one batch of encoder states, with what it has read so far in its cache."""

    def __init__(self, backbone: "Whisper", states: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"] | None):
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        self.base: Any = backbone.module
        self.decoder: Any = backbone.decoder
        self.projection = backbone.module.proj_out.weight
        self.generation: Generation = backbone.generation
        self.states = states
        if mask is not None and bool(mask.all()):
            mask = None
        self.mask = None if mask is None else mask[:, None, None]
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.length = 0
        self.rows: Tensor | None = None
        """Which of the clips are left, where some are not or are there several times."""

    def read(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """Hidden states of these next tokens; several are only taken at the start."""
        positions = torch.arange(self.length, self.length + tokens.shape[1], device=tokens.device)
        x = self.decoder.embed_tokens(tokens) + self.decoder.embed_positions.weight[positions]
        mask = self.mask
        if mask is not None and tokens.shape[1] > 1:
            mask = mask.expand(-1, -1, tokens.shape[1], -1)
        with going_on_with(self.base, self.rows):
            for layer in self.decoder.layers:  # self attention is causal by itself while its mask is None
                x = layer(
                    x,
                    None,
                    self.states,
                    encoder_attention_mask=mask,
                    past_key_values=self.cache,
                    use_cache=True,
                )
            x = self.decoder.layer_norm(x)
        self.length += tokens.shape[1]
        return x

    def keep(self, rows: Int[Tensor, " k"]) -> None:
        """Go on with these rows only, in this order."""
        self.cache.batch_select_indices(rows)
        self.rows = rows if self.rows is None else self.rows[rows]
        # The layers read keys and values from the cache and of the states only that they are there.
        self.states = self.states[:1]
        if self.mask is not None:
            self.mask = self.mask[rows]

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """Rows of one clip trade their history (beams); what they attend to in the audio is the same."""
        self.cache.self_attention_cache.batch_select_indices(rows)

    def forbidden(self, first: bool) -> Float[Tensor, " v"]:
        """What is added to the scores: minus infinity for tokens that are never written (here)."""
        bias = torch.zeros(len(self.projection), device=self.states.device, dtype=self.projection.dtype)
        never = never_written(self.generation, len(bias))
        bias[torch.tensor(never, device=bias.device)] = float("-inf")
        if first:
            bias[list(self.generation.begin_suppress)] = float("-inf")
        return bias

    def scores(
        self, hidden: Float[Tensor, "*b d"], bias: Float[Tensor, " v"] | None
    ) -> Float[Tensor, "*b v"]:
        return F.linear(hidden, self.projection, bias)

    def no_speech(self, hidden: Float[Tensor, "b d"]) -> list[float]:
        """The probability of <|nospeech|>, which is read off where the transcript starts."""
        if self.generation.no_speech is None:
            return [0.0] * len(hidden)
        scores = self.scores(hidden, None).float()
        return (scores[:, self.generation.no_speech] - scores.logsumexp(-1)).exp().tolist()


def never_written(g: "Generation", size: int) -> list[int]:
    """Tokens of a vocabulary of `size` that are no text: special ones, times, and what is to be left out."""
    never = {*g.suppress, g.sot, g.no_timestamps, g.start_of_previous}
    never |= {*g.languages.values(), *g.tasks.values()}
    never |= {g.no_speech} if g.no_speech is not None else set()
    return sorted(never | set(range(g.timestamp_begin, size)))
