"""What a decoder wrote about one clip."""

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


_LOOP_RATIO = 2.4  # text that compresses better runs in circles (Whisper, arXiv:2212.04356, section 4.5)


@dataclass(frozen=True)
class Decoded:
    """What the decoder wrote about one clip, and how sure it was."""

    text: str
    tokens: tuple[int, ...]
    """Without prompt and end of text."""
    avg_logprob: float
    no_speech_prob: float
    logprobs: tuple[float, ...] = field(default=(), repr=False)
    """One a token; empty after a beam search."""
    stopped: bool = False
    """It reached the largest number of tokens that audio of this length may have."""
    looped: bool = False
    """What was read first ran in circles, whether or not it was replaced."""
    unheard: bool = False
    """What was read first left speech without words, whether or not it was replaced."""

    @property
    def compression_ratio(self) -> float:
        """Length over compressed length: a loop compresses well."""
        raw = self.text.encode()
        return len(raw) / len(zlib.compress(raw)) if raw else 0.0

    @property
    def loops(self) -> bool:
        """It runs in circles, or did not come to an end."""
        return self.stopped or self.compression_ratio > _LOOP_RATIO
