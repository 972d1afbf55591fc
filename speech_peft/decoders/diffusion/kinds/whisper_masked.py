"""Whisper's own decoder made to see both sides: tokens to the right are seen too, and a mask embedding comes.

Its shift stays: the state at token i says what token i + 1 is, as it was trained to, so that what it knows of
language and sound carries over. For the same reason no token looks at a masked one, and those known to the
right count little at first: each head learns how much (`right`). So behind a whole beginning of a text the
untrained decoder nearly is the stock one. Adapters of any method at its sites learn the rest, or a copy of
its blocks does (`train: decoder`); the frozen decoder stays what it was either way.

Texts of one clip are folded into one row, k texts behind each other: cross attention then reads the clip's
keys and values once, and self attention is kept to each text by its mask.
"""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...words.whisper_reader import never_written
from ...words.word_times import time_heads
from ..masked import MaskedDecoder, Memory, beside

if TYPE_CHECKING:
    from ....backbones.whisper import Whisper


_RIGHT, _PACE = -3.0, 30.0
"""What is added to scores of tokens to the right before it is learned, so that they have a twentieth of their
weight; and how much faster than other numbers it is learned, as it has further to go."""


class WhisperMasked(MaskedDecoder):
    """`own`: a copy of the blocks, to be trained. Without, the frozen ones run, with their adapters."""

    def __init__(self, backbone: "Whisper", own: bool = True):
        super().__init__()
        self._backbone = (backbone,)  # in a tuple: no part of this module, nor of its files
        generation, module = backbone.generation, backbone.module
        self.end, self.vocabulary = generation.eot, module.config.vocab_size
        self.room = module.config.max_target_positions // 2
        self.never = tuple(never_written(generation, self.vocabulary))
        width = backbone.dim
        # As large as an embedding is: what the blocks know to read.
        scale = float(module.proj_out.weight[: generation.eot].float().std())
        self.mask_embedding = nn.Parameter(torch.randn(width) * scale)
        layers = backbone.decoder.layers
        self.right = nn.Parameter(torch.zeros(len(layers), layers[0].self_attn.num_heads))
        self.blocks: nn.ModuleList | None = None
        if own:
            blocks, norm = copy.deepcopy((layers, backbone.decoder.layer_norm))
            self.blocks, self.norm = blocks, norm
            self.places = nn.Parameter(backbone.decoder.embed_positions.weight.detach().clone())
            for part in (blocks, norm):
                part.float().requires_grad_(True)

    @torch.no_grad()
    def toward_stock(self, learned: float) -> None:
        """Set its own blocks to so much of the way from the frozen ones to what they have learned.

        Between the two texts of strangers come out better than at either end (WiSE-FT, arXiv:2109.01903).
        """
        assert self.blocks is not None
        decoder = self.backbone.decoder
        stock = (decoder.layers, decoder.layer_norm)
        own = [p for part in (self.blocks, self.norm) for p in part.parameters()]
        frozen = [p for part in stock for p in part.parameters()]
        for ours, theirs in zip([*own, self.places], [*frozen, decoder.embed_positions.weight], strict=True):
            ours.lerp_(theirs.to(ours), 1 - learned)

    @property
    def backbone(self) -> "Whisper":
        return self._backbone[0]

    @property
    def _layers(self) -> Any:
        return self.backbone.decoder.layers if self.blocks is None else self.blocks

    def memory(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None = None,
        prompt: Int[Tensor, "b p"] | None = None,
    ) -> Memory:
        if prompt is None:
            prompt = torch.tensor([self.backbone.generation.prompt()] * len(states), device=states.device)
        keys, values = [], []
        for layer in self._layers:
            attention = layer.encoder_attn
            of = states.to(attention.v_proj.weight.dtype) if self.blocks is not None else states
            keys.append(_heads(attention.k_proj(of), attention.num_heads))
            values.append(_heads(attention.v_proj(of), attention.num_heads))
        if mask is not None and bool(mask.all()):
            mask = None
        return Memory(tuple(keys), tuple(values), mask, prompt)

    def hidden(
        self, tokens: Int[Tensor, "r n"], masked: Bool[Tensor, "r n"], memory: Memory
    ) -> Float[Tensor, "r n d"]:
        assert memory.prompt is not None
        k, (rows, length), before = beside(len(tokens), memory), tokens.shape, memory.prompt.shape[1]
        decoder = self.backbone.decoder
        text = decoder.embed_tokens(tokens)
        text = torch.where(masked[..., None], self.mask_embedding.to(text.dtype), text)
        start = decoder.embed_tokens(memory.prompt).repeat_interleave(k, 0)
        x = torch.cat([start, text], 1) + self._places(before + length)
        # k texts of a clip as one row, each closed to the others.
        size = before + length
        x = x.reshape(rows // k, k * size, -1)
        if self.blocks is not None:
            x = x.to(self.mask_embedding.dtype)
        known = F.pad(~masked, (before, 0), value=True).reshape(rows // k, k * size)
        x = self._through(x, _closed(known, size), memory)
        x = (decoder.layer_norm if self.blocks is None else self.norm)(x)
        return x.reshape(rows, size, -1)[:, before - 1 : -1]

    def _through(self, x: Tensor, closed: Bool[Tensor, "b n n"], memory: Memory) -> Tensor:
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        heard = DynamicCache()
        for i, (keys, values) in enumerate(zip(memory.keys, memory.values, strict=True)):
            heard.update(keys, values, i)
        cache = EncoderDecoderCache(DynamicCache(), heard)
        cache.self_attention_cache = None  # type: ignore[assignment]  # nothing is written behind anything
        cross = None if memory.mask is None else memory.mask[:, None, None].expand(-1, -1, x.shape[1], -1)
        told: Any = {"past_key_values": cache, "use_cache": True, "is_causal": False}
        there = x[:, :1]  # of the states the layers only ask whether there are any
        to_the_right = torch.ones_like(closed[0]).triu(1)
        for layer, right in zip(self._layers, (_RIGHT + _PACE * self.right).to(x.dtype), strict=True):
            scores = torch.where(to_the_right, right[:, None, None], 0.0)
            scores = scores.masked_fill(closed[:, None], torch.finfo(x.dtype).min)
            x = layer(x, scores, there, encoder_attention_mask=cross, **told)
        return x

    def _places(self, count: int) -> Tensor:
        table = self.backbone.decoder.embed_positions.weight if self.blocks is None else self.places
        return table[:count]

    def attention(self, tokens: Int[Tensor, "b n"], memory: Memory) -> Float[Tensor, "b h n t"]:
        """By the stock heads that follow time; the state before a token is where that is said."""
        assert memory.prompt is not None
        queries: dict[int, Tensor] = {}
        layers, heads = self._layers, time_heads(self.backbone)
        handles = [
            layers[block].encoder_attn.q_proj.register_forward_hook(_kept(queries, block))
            for block in {block for block, _ in heads}
        ]
        try:
            self.hidden(tokens, torch.zeros_like(tokens, dtype=torch.bool), memory)
        finally:
            for handle in handles:
                handle.remove()
        before, maps = memory.prompt.shape[1], []
        for block, head in heads:
            attention = layers[block].encoder_attn
            q = _heads(queries[block], attention.num_heads)[:, head, before - 1 : -1] * attention.scaling
            scores = q.float() @ memory.keys[block][:, head].float().transpose(-1, -2)
            if memory.mask is not None:
                scores = scores.masked_fill(~memory.mask[:, None], float("-inf"))
            maps.append(scores.softmax(-1))
        return torch.stack(maps, 1)

    def scores(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        return F.linear(hidden, self.backbone.module.proj_out.weight.to(hidden.dtype))

    def encode(self, text: str) -> list[int]:
        return self.backbone.tokenizer.encode(" " + text.strip(), add_special_tokens=False)

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(
            self.backbone.tokenizer.decode(self.until_end(tokens), skip_special_tokens=True).split()
        )


def _kept(found: dict[int, Tensor], block: int) -> Callable[[Any, Any, Tensor], None]:
    def hook(module: Any, inputs: Any, output: Tensor) -> None:
        found[block] = output

    return hook


def _heads(x: Float[Tensor, "b t d"], heads: int) -> Float[Tensor, "b h t c"]:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()


def _closed(known: Bool[Tensor, "b n"], size: int) -> Bool[Tensor, "b n n"]:
    """Whom a token of texts of this size, side by side in a row, does not look at.

    These are tokens of other texts, and masked ones other than itself.
    """
    text = torch.arange(known.shape[1], device=known.device) // size
    itself = torch.eye(known.shape[1], dtype=torch.bool, device=known.device)
    return (text[:, None] != text) | (~known[:, None] & ~itself)
