"""CTC on encoder states, and the greedy reading of it (Graves et al. 2006).

A linear layer where adapters in the encoder learn with it. Behind an encoder that nothing changes a few
blocks stand before the layer, and learn what the frozen states say of characters.
"""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .convnext import ConvNeXt

BLANK = 0
_MARKS = " '.,!?;:-\""


class Characters:
    """A vocabulary of characters; index 0 is the blank, and case is folded unless the characters carry it.

    >>> Characters("ab ").encode("A bx")
    [1, 3, 2]
    """

    def __init__(self, characters: str):
        self.characters = characters
        self._index = {c: i for i, c in enumerate(characters, start=1)}
        self._fold = characters == characters.lower()

    @classmethod
    def of(cls, texts: Iterable[str], cased: bool = False) -> "Characters":
        """The characters of a corpus, case folded: letters, digits, marks, apostrophe and space.

        `cased`: as they are written, the marks between words too.
        """
        found = {c for text in texts for c in (text if cased else text.lower())}
        marks = _MARKS if cased else " '"
        kept = (c for c in found if c.isalnum() or c in marks or not (c.isascii() or c.isspace()))
        return cls("".join(sorted(kept)))

    def __len__(self) -> int:
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """Indices of the text; characters outside the vocabulary are left out."""
        text = " ".join((text.lower() if self._fold else text).split())
        return [self._index[c] for c in text if c in self._index]

    def decode(self, indices: Iterable[int]) -> str:
        return "".join(self.characters[i - 1] for i in indices if i != BLANK).strip()


class CtcHead(nn.Module):
    """Encoder states to log-probabilities of characters, through so many blocks."""

    def __init__(self, dim: int, characters: str, blocks: int = 0):
        super().__init__()
        self.vocabulary = Characters(characters)
        self.blocks = nn.Sequential(*(ConvNeXt(dim, 4 * dim) for _ in range(blocks)))
        if blocks:
            self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.linear = nn.Linear(dim, len(self.vocabulary))

    @property
    def config(self) -> dict[str, Any]:
        """What it takes to build it again, beside the width of the states."""
        blocks = {"blocks": len(self.blocks)} if len(self.blocks) else {}
        return {"characters": self.vocabulary.characters, **blocks}

    def forward(self, states: Float[Tensor, "b t d"]) -> Float[Tensor, "b t v"]:
        """Always float32: a sum over alignments loses itself in half precision."""
        if len(self.blocks):
            before, after = self.norms
            states = after(self.blocks(before(states.to(self.linear.weight.dtype))))
        with torch.autocast(states.device.type, enabled=False):
            return F.log_softmax(self.linear(states.to(self.linear.weight.dtype)).float(), dim=-1)

    def loss(
        self, states: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"], texts: list[str]
    ) -> tuple[Tensor, int]:
        """The summed negative log-likelihood, and the number of characters it is over."""
        return self.score(self(states), mask, texts)

    def score(
        self, log_probs: Float[Tensor, "b t v"], mask: Bool[Tensor, "b t"], texts: list[str]
    ) -> tuple[Tensor, int]:
        """The same from what `forward` gives.

        A text longer than its audio has frames has no alignment and counts as zero.
        """
        targets = [torch.tensor(self.vocabulary.encode(text)) for text in texts]
        sizes = torch.tensor([len(target) for target in targets])
        flat = torch.cat(targets).long().to(log_probs.device)
        frames = mask.sum(1)
        loss = F.ctc_loss(
            log_probs.transpose(0, 1), flat, frames, sizes, blank=BLANK, reduction="sum", zero_infinity=True
        )
        return loss, int(sizes.sum())

    @torch.no_grad()
    def decode(self, states: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]) -> list[str]:
        """The best path of each clip: repeats collapsed, blanks dropped."""
        return greedy(self(states).argmax(-1), mask, self.vocabulary)


def greedy(best: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], vocabulary: Characters) -> list[str]:
    """Collapses runs of one index, then drops blanks.

    >>> greedy(torch.tensor([[1, 1, 0, 1, 2, 2]]), torch.ones(1, 6, dtype=torch.bool), Characters("ab"))
    ['aab']
    """
    rows = zip(best.tolist(), mask.sum(1).tolist(), strict=True)
    return [vocabulary.decode(index for index, _ in groupby(row[:length])) for row, length in rows]
