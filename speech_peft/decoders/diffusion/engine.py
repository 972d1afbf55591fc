"""What hears windows by a masked decoder: whisper's windows, guards and times, another way to the text.

What runs in circles, or into its limit, is read again by the frozen model's own decoder.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..words.engine import Stock, TorchEngine
from ..words.search import Found
from ..words.whisper_text import seconds_of
from ..words.word_times import TimedWord, frames_of, words_at
from .lengths import by_duration
from .masked import MaskedDecoder, Memory
from .sample import Filled, Sampling, fill
from .select import Selection, chosen
from .times import placed

if TYPE_CHECKING:
    from ...backbones.whisper import Whisper


class MaskedEngine(TorchEngine):
    """Fills texts in a few parallel passes."""

    name: str = "diffusion"

    def __init__(
        self,
        backbone: "Whisper",
        decoder: MaskedDecoder,
        stock: Stock,
        sampling: Sampling | None = None,
        selection: Selection = "sum",
    ):
        super().__init__(backbone)
        self.decoder, self.stock = decoder, stock
        self.sampling = sampling or Sampling()
        self.selection: Selection = selection
        self._sure: dict[tuple[int, ...], tuple[float, ...]] = {}
        """Of the texts that were found last, how sure each token was."""

    @torch.inference_mode()
    def find(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None,
        prompt: Int[Tensor, "b p"],
        limits: Int[Tensor, " b"],
        width: int = 1,
        ngram: int = 0,
    ) -> list[Found]:
        if width > 1 or ngram:
            with self.stock():
                return super().find(states, mask, prompt, limits, width, ngram)
        _, filled = self.filled(states, mask, prompt, limits)
        rows = chosen(self.decoder, filled, self.selection)
        silences = filled.silence.tolist()
        found = [
            _found(self.decoder, *row, silence, limit)
            for row, silence, limit in zip(rows, silences, limits.tolist(), strict=True)
        ]
        self._sure = {one.tokens: one.logprobs for one in found}
        return found

    def filled(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None,
        prompt: Int[Tensor, "b p"],
        limits: Int[Tensor, " b"],
    ) -> tuple[Memory, Filled]:
        """What the decoder remembers of each clip, and all candidates."""
        memory = self.decoder.memory(states, mask, prompt)
        seconds = seconds_of(states, mask, limits, self.backbone.frame_rate)
        return memory, fill(self.decoder, memory, by_duration(seconds, self.decoder.room), self.sampling)

    @torch.inference_mode()
    def words(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"],
        tokens: Sequence[Sequence[int]],
        *,
        seconds: Sequence[float],
        language: Sequence[str | None],
        task: str,
    ) -> list[tuple[TimedWord, ...]]:
        """Times by the decoder's own cross attention; how sure a word is, as it was when it was filled in."""
        backbone = self.backbone
        prompt = [backbone.generation.prompt(code, task) for code in language]
        memory = self.decoder.memory(states, mask, torch.tensor(prompt, device=states.device))
        counts = frames_of(mask, seconds, backbone.frame_rate)
        found = []
        for row, frames, count in zip(
            tokens, placed(self.decoder, memory, tokens, counts), counts, strict=True
        ):
            sure = self._sure.get(tuple(row), (0.0,) * len(row))
            shares = np.exp(np.array([*sure, 0.0], np.float32))
            end = count / backbone.frame_rate
            found.append(words_at(backbone, row, frames / backbone.frame_rate, end, shares))
        return found


def _found(
    decoder: MaskedDecoder, tokens: list[int], shares: list[float], silence: float, limit: int
) -> Found:
    """As a search has it: log-probabilities of the tokens and of the end."""
    text = decoder.until_end(tokens)[:limit]
    logs = torch.tensor(shares[: len(text) + 1]).clamp(min=1e-6).log().tolist()
    stopped = decoder.end not in tokens[: limit + 1]
    return Found(tuple(text), sum(logs), silence, tuple(logs[: len(text)]), stopped)
