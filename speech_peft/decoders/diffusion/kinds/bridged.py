"""A masked text model beside a frozen encoder, joined to it by cross attention in every block.

    x = x + attention(norm(x))          both sides, rotary positions (RoPE)
    x = x + cross(norm(x), states)      the bridge: full rank, no gate, no positions
    x = x + swiglu(norm(x))

Diff_LLaMA of SMDM (arXiv:2410.18514) with the bridge of Whisfusion (arXiv:2508.07048), in plain torch.
`checkpoints` reads what they published; of any other size it is a decoder of its own, trained from scratch.
The model is not told how much is masked: it sees that.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..masked import MaskedDecoder, Memory, beside
from .texts import Texts

ROPE_BASE = 10_000.0


class Bridged(MaskedDecoder):
    """`dim` is the width of the states; the token behind the vocabulary is the mask."""

    def __init__(
        self,
        dim: int,
        texts: Texts,
        *,
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        inner: int | None = None,
        room: int = 256,
    ):
        super().__init__()
        self.texts, self.end, self.vocabulary, self.room = texts, texts.end, texts.vocabulary, room
        self.per_second = texts.per_second
        self.embed = nn.Embedding(texts.vocabulary + 1, width)
        inner = inner or 4 * width
        self.blocks = nn.ModuleList(Block(dim, width, heads, inner) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, texts.vocabulary, bias=False)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=(2 / 5 / width) ** 0.5)
        for block in self._rows:
            for last in (block.out, block.cross_out, block.down):
                nn.init.normal_(last.weight, std=width**-0.5 / layers)

    @property
    def _rows(self) -> "list[Block]":
        return cast("list[Block]", list(self.blocks))

    @property
    def heads(self) -> int:
        return self._rows[0].heads

    @property
    def bridge(self) -> list[nn.Parameter]:
        """What joins text and sound: all that the first stage of Whisfusion trains."""
        parts = [m for b in self._rows for m in (b.norm_cross, b.cross_q, b.cross_kv, b.cross_out)]
        return [p for part in parts for p in part.parameters()]

    def memory(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None = None,
        prompt: Int[Tensor, "b p"] | None = None,
    ) -> Memory:
        if mask is not None and bool(mask.all()):
            mask = None
        pairs = [block.remember(states.to(block.cross_kv.weight.dtype)) for block in self._rows]
        return Memory(tuple(k for k, _ in pairs), tuple(v for _, v in pairs), mask)

    def hidden(
        self, tokens: Int[Tensor, "r n"], masked: Bool[Tensor, "r n"], memory: Memory
    ) -> Float[Tensor, "r n d"]:
        k = beside(len(tokens), memory)
        x = self.embed(tokens.masked_fill(masked, self.vocabulary))
        turn = rotation(tokens.shape[1], self._rows[0].size, x)
        closed = None if memory.mask is None else memory.mask[:, None, None]
        for block, keys, values in zip(self._rows, memory.keys, memory.values, strict=True):
            x = block(x, turn, keys, values, closed, k)
        return self.norm(x)

    def attention(self, tokens: Int[Tensor, "b n"], memory: Memory) -> Float[Tensor, "b h n t"]:
        x = self.embed(tokens)
        turn = rotation(tokens.shape[1], self._rows[0].size, x)
        closed = None if memory.mask is None else memory.mask[:, None, None]
        maps = []
        for i, (block, keys, values) in enumerate(zip(self._rows, memory.keys, memory.values, strict=True)):
            if i >= len(self.blocks) // 2:
                maps.append(block.looks(x, turn, keys, closed))
            x = block(x, turn, keys, values, closed, 1)
        return torch.cat(maps, 1)

    def scores(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        return self.head(hidden)

    def encode(self, text: str) -> list[int]:
        return self.texts.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.texts.decode(self.until_end(tokens))

    def piece(self, token: int) -> str:
        return self.texts.piece(token)


class Block(nn.Module):
    """Self attention, the bridge, and the feed-forward sublayer; no bias anywhere."""

    def __init__(self, dim: int, width: int, heads: int, inner: int):
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.norm_self, self.norm_cross, self.norm_ffn = (nn.RMSNorm(width, eps=1e-5) for _ in range(3))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.cross_q = nn.Linear(width, width, bias=False)
        self.cross_kv = nn.Linear(dim, 2 * width, bias=False)
        self.cross_out = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)

    def remember(self, states: Float[Tensor, "b t d"]) -> tuple[Tensor, Tensor]:
        """Keys and values of the states."""
        keys, values = self.cross_kv(states).chunk(2, -1)
        return self._split(keys), self._split(values)

    def forward(
        self,
        x: Float[Tensor, "r n d"],
        turn: tuple[Tensor, Tensor],
        keys: Float[Tensor, "b h t c"],
        values: Float[Tensor, "b h t c"],
        closed: Bool[Tensor, "b 1 1 t"] | None,
        k: int,
    ) -> Float[Tensor, "r n d"]:
        x = self._among_itself(x, turn)
        # The k texts of a clip as one row of queries: its keys and values are read once.
        rows, length, width = x.shape
        q = self._split(self.cross_q(self.norm_cross(x)).reshape(rows // k, k * length, width))
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=closed)
        x = x + self.cross_out(y.transpose(1, 2).reshape(rows, length, width))
        h = self.norm_ffn(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))

    def looks(
        self, x: Tensor, turn: tuple[Tensor, Tensor], keys: Tensor, closed: Tensor | None
    ) -> Float[Tensor, "b h n t"]:
        """What the bridge attends to."""
        q = self._split(self.cross_q(self.norm_cross(self._among_itself(x, turn))))
        scores = q @ keys.transpose(-1, -2) * self.size**-0.5
        return (scores if closed is None else scores.masked_fill(~closed, float("-inf"))).softmax(-1)

    def _among_itself(self, x: Float[Tensor, "r n d"], turn: tuple[Tensor, Tensor]) -> Float[Tensor, "r n d"]:
        q, keys, values = (self._split(part) for part in self.qkv(self.norm_self(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(rotated(q, *turn), rotated(keys, *turn), values)
        return x + self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n c"]:
        return x.unflatten(-1, (self.heads, self.size)).transpose(1, 2)


def rotation(length: int, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angle at each place, for each half of a head (Su et al., arXiv:2104.09864)."""
    speed = ROPE_BASE ** -(torch.arange(0, size, 2, device=like.device, dtype=torch.float32) / size)
    angle = torch.outer(torch.arange(length, device=like.device, dtype=torch.float32), speed)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def rotated(x: Float[Tensor, "b h n c"], cos: Tensor, sin: Tensor) -> Float[Tensor, "b h n c"]:
    """Each pair of the two halves of a head, turned."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
