"""Drafts for Whisper's own decoder from characters that a CTC layer reads off the same states.

The layer knows where in the sound each character is, which a decoder that fills all places at once has to
guess; and it costs no pass. What the decoder corrects is found again in the draft by its letters, as a word
that is written otherwise may be of more tokens or fewer.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .verified import Drafts
from .whisper_text import seconds_of

if TYPE_CHECKING:
    from ...backbones.whisper import Whisper
    from ..ctc import CtcHead

_ENDS = ".!?"
_BEHIND, _ASIDE = 12, 16
"""Characters of the text that are looked for in the draft, and how far from where they are expected."""


class SpelledDrafter:
    """The text of a CTC layer, in Whisper's tokens."""

    def __init__(self, backbone: "Whisper", head: "CtcHead"):
        self.backbone, self.head = backbone, head

    def drafts(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None,
        prompt: Int[Tensor, "b p"],
        limits: Int[Tensor, " b"],
    ) -> Drafts:
        rate = self.backbone.frame_rate
        counts = [math.ceil(rate * seconds) for seconds in seconds_of(states, mask, limits, rate)]
        longest = max(counts)
        heard = (
            torch.arange(longest, device=states.device) < torch.tensor(counts, device=states.device)[:, None]
        )
        spelled = [f" {text}" for text in self.head.decode(states[:, :longest], heard)]
        lag = [0] * len(spelled)
        """How far the draft is behind the text, in letters."""

        def onward(clips: Sequence[int], texts: Sequence[Sequence[int]]) -> list[list[int]]:
            ahead = []
            for clip, text in zip(clips, texts, strict=True):
                written = self.backbone.tokenizer.decode(text)
                at = found_again(written, spelled[clip], len(written) - lag[clip])
                lag[clip] = len(written) - at
                ahead.append(self._tokens(begun(spelled[clip][at:], written)))
            return ahead

        return Drafts([self._tokens(text) for text in spelled], [0] * len(spelled), onward, costs=0)

    def _tokens(self, text: str) -> list[int]:
        found = self.backbone.tokenizer.encode(text, add_special_tokens=False) if text.strip() else []
        return [*found, self.backbone.generation.eot]


def found_again(written: str, draft: str, expected: int) -> int:
    """Where in a draft its likeness of what was written ends: by fewest edits, near where it is expected.

    Of equally good ends one between words is taken, as tokens mostly are whole words.

    >>> found_again(" the ferret", " the ferrat is", 11)
    11
    >>> found_again(" I think", " I thin he is", 8)
    7
    """
    tail = written[-_BEHIND:]
    start = max(0, expected - _BEHIND - _ASIDE)
    near = draft[start : expected + _ASIDE]
    edits = [0] * (len(near) + 1)  # it may begin anywhere
    for letter in tail:
        above, edits = edits, [edits[0] + 1]
        for j, other in enumerate(near):
            edits.append(min(edits[j] + 1, above[j + 1] + 1, above[j] + (letter != other)))

    def cost(j: int) -> tuple[int, bool, int]:
        inside = draft[start + j : start + j + 1].isalnum()
        return edits[j], inside, abs(start + j - expected)

    return start + min(range(len(edits)), key=cost)


def begun(draft: str, written: str) -> str:
    """The rest of a draft behind what was written; behind the end of a sentence it begins with a capital.

    >>> begun(" besides they", " under there."), begun(" besides they", " under there,")
    (' Besides they', ' besides they')
    """
    letter = len(draft) - len(draft.lstrip())
    if written[-1:] in _ENDS and letter:
        return draft[:letter] + draft[letter : letter + 1].upper() + draft[letter + 1 :]
    return draft
