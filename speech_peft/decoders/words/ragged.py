"""Whisper's stock decoder read several tokens at a time, every row of a batch at a place of its own.

Keys and values lie in slots, one a place of the text. What is read again is written over what lay there, so a
row that goes back to an earlier place forgets what followed it: no query sees slots behind its own place.
"""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core.current import going_on_with

if TYPE_CHECKING:
    from ...backbones.whisper import Whisper


class Slots:
    """Keys and values of self attention, by block; where transformers asks for a cache."""

    def __init__(self, room: int):
        self.room = room
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.places = torch.zeros(0, 0, dtype=torch.long)
        """Where the tokens that are being read stand."""

    def update(
        self, keys: Tensor, values: Tensor, block: int, *rest: Any, **more: Any
    ) -> tuple[Tensor, Tensor]:
        """Puts the new ones in their slots; gives all up to the last place."""
        if block not in self.keys:
            rows, heads, _, size = keys.shape
            self.keys[block], self.values[block] = (
                x.new_zeros(rows, heads, self.room, size) for x in (keys, values)
            )
        where = self.places[:, None, :, None].expand_as(keys)
        until = int(self.places.max()) + 1
        self.keys[block].scatter_(2, where, keys)
        self.values[block].scatter_(2, where, values)
        return self.keys[block][:, :, :until], self.values[block][:, :, :until]

    def keep(self, rows: Int[Tensor, " k"]) -> None:
        for kept in (self.keys, self.values):
            for block in kept:
                kept[block] = kept[block][rows]


class Ragged:
    """The decoder over one batch of encoder states."""

    def __init__(
        self, backbone: "Whisper", states: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"] | None, room: int
    ):
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        self.base, self.decoder = backbone.module, backbone.decoder
        self.states = states
        self.mask = None if mask is None or bool(mask.all()) else mask
        self.slots = Slots(min(room, backbone.module.config.max_target_positions))
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.cache.self_attention_cache = self.slots  # type: ignore[assignment]
        self.rows: Tensor | None = None

    def read(self, tokens: Int[Tensor, "b n"], start: Int[Tensor, " b"]) -> Float[Tensor, "b n d"]:
        """Hidden states of tokens that stand from `start` on, each row's own; all before was read."""
        places = start[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        places = places.clamp(max=self.slots.room - 1)  # padding of short rows, which nobody looks at
        self.slots.places = places
        x = self.decoder.embed_tokens(tokens) + self.decoder.embed_positions.weight[places]
        slot = torch.arange(int(places.max()) + 1, device=tokens.device)
        closed = slot[None, None] > places[..., None]
        own = torch.zeros(closed.shape, dtype=x.dtype, device=x.device)
        own = own.masked_fill_(closed, torch.finfo(x.dtype).min)[:, None]
        cross = None if self.mask is None else self.mask[:, None, None].expand(-1, -1, tokens.shape[1], -1)
        with going_on_with(self.base, self.rows):
            for layer in self.decoder.layers:
                x = layer(
                    x,
                    own,
                    self.states,
                    encoder_attention_mask=cross,
                    past_key_values=self.cache,
                    use_cache=True,
                )
            return self.decoder.layer_norm(x)

    def keep(self, rows: Int[Tensor, " k"]) -> None:
        """Go on with these rows only."""
        self.slots.keep(rows)
        self.cache.cross_attention_cache.batch_select_indices(rows)
        self.rows = rows if self.rows is None else self.rows[rows]
        self.states = self.states[:1]  # the layers ask only whether there are any
        if self.mask is not None:
            self.mask = self.mask[rows]
