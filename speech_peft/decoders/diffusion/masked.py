"""What every masked-diffusion decoder is: a clip is looked at once, then tokens are filled in, all at a time.

    memory = decoder.memory(states)                    once per clip: cross keys and values
    logits = decoder(tokens, masked, memory)           what stands at each place, seen from both sides

Sampling, selection, word times and training know no more than this (Whisfusion, arXiv:2508.07048; SMDM,
arXiv:2410.18514).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

BUCKET = 16
"""Texts are as long as a multiple of this: a second of sound does not cost as much as thirty."""


@dataclass(frozen=True)
class Memory:
    """What the decoder attends to of each clip."""

    keys: tuple[Float[Tensor, "b h t c"], ...]
    """One a block."""
    values: tuple[Float[Tensor, "b h t c"], ...]
    mask: Bool[Tensor, "b t"] | None = None
    """False where states are padding between clips of a batch; None where nothing is."""
    prompt: Int[Tensor, "b p"] | None = None
    """Tokens that stand before every text and are never masked."""

    def __len__(self) -> int:
        return len(self.keys[0])

    def picked(self, rows: Int[Tensor, " k"]) -> "Memory":
        """Of these clips only, in this order."""
        return replace(
            self,
            keys=tuple(k[rows] for k in self.keys),
            values=tuple(v[rows] for v in self.values),
            mask=None if self.mask is None else self.mask[rows],
            prompt=None if self.prompt is None else self.prompt[rows],
        )


class MaskedDecoder(nn.Module, ABC):
    """Fills masked tokens of a text, knowing those that are there and what is heard.

    Texts of one clip lie beside each other: `tokens` has k times as many rows as the memory has clips, and
    the k share keys and values. Text ends in `end` repeated to the length of its bucket.
    """

    end: int
    vocabulary: int
    """How many tokens there are."""
    room: int
    """The most places of a text, its end included."""
    per_second: float = 5.0
    """How many tokens fast speech has in a second."""
    corrects: bool = False
    """Whether it was trained to see through its own half-filled texts."""
    never: tuple[int, ...] = ()
    """Tokens that are never written."""

    @abstractmethod
    def memory(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None = None,
        prompt: Int[Tensor, "b p"] | None = None,
    ) -> Memory:
        """Cross keys and values of each clip; `prompt` for decoders that take one."""

    @abstractmethod
    def hidden(
        self, tokens: Int[Tensor, "r n"], masked: Bool[Tensor, "r n"], memory: Memory
    ) -> Float[Tensor, "r n d"]:
        """What is known at each place of the text; r is a multiple of the memory's clips."""

    @abstractmethod
    def scores(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """Over all tokens. The costly part of a small decoder: ask it of places that are wanted."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without end."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; what follows an end is no text."""

    @abstractmethod
    def attention(self, tokens: Int[Tensor, "b n"], memory: Memory) -> Float[Tensor, "b h n t"]:
        """How much each place of a whole text looks at each state, by the heads that may follow time."""

    def forward(
        self, tokens: Int[Tensor, "r n"], masked: Bool[Tensor, "r n"], memory: Memory
    ) -> Float[Tensor, "r n v"]:
        return self.scores(self.hidden(tokens, masked, memory))

    def rows(self, texts: Sequence[str], room: int | None = None) -> Int[Tensor, "b n"]:
        """Texts as rows of one bucket; of a text longer than `room` tokens the first are kept."""
        encoded = [self.encode(text)[:room] for text in texts]
        width = bucket(max(map(len, encoded)) + 1)
        return torch.tensor([row + [self.end] * (width - len(row)) for row in encoded])

    def piece(self, token: int) -> str:
        """What one token adds to a text, with the space before it."""
        return self.decode([token])

    def until_end(self, row: Sequence[int]) -> list[int]:
        """The tokens before the first end."""
        row = list(row)
        return row[: row.index(self.end)] if self.end in row else row


def bucket(length: int) -> int:
    """The next multiple of 16, at least one.

    >>> [bucket(n) for n in (0, 1, 16, 17)]
    [16, 16, 16, 32]
    """
    return max(1, -(-length // BUCKET)) * BUCKET


def beside(rows: int, memory: Memory) -> int:
    """How many texts each clip has; raises ValueError where they are not equally many."""
    clips = len(memory)
    if not clips or rows % clips:
        raise ValueError(f"tokens: {rows} rows for {clips} clips; give every clip equally many, side by side")
    return rows // clips
