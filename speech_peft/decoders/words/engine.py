"""What hears windows with Whisper: it encodes them, finds their texts, and says when each word was said.

Which windows there are, what is read again and what is believed is the caller's; engines differ in how they
compute. `TorchEngine` runs every adapter on every device; `ct2_engine` has CTranslate2's decoder.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from . import search, word_times
from .search import Found
from .word_times import TimedWord

if TYPE_CHECKING:
    from ...backbones.base import Features
    from ...backbones.whisper import Whisper

Stock = Callable[[], AbstractContextManager[object]]
"""Inside, the frozen decoder is what it was: no adapter of another one is at work."""


@runtime_checkable
class Engine(Protocol):
    """Computes for one Whisper."""

    name: str
    """As `--engine` and reports have it."""
    backbone: "Whisper"
    workers: int
    """How many batches it hears at the same time, each in a thread of the caller's."""
    stretch: float
    """The longest clip of a decoder's batch over its shortest; 1: of one length, as no padding is masked."""
    most_rows: int | None
    """Clips of 30 s in a decoder's batch, and as many more as are shorter; None: as many as there are."""

    def encode(self, features: "Features") -> Float[Tensor, "b t d"]: ...

    def find(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None,
        prompt: Int[Tensor, "b p"],
        limits: Int[Tensor, " b"],
        width: int = 1,
        ngram: int = 0,
    ) -> list[Found]:
        """The tokens of each clip: the likeliest, or by a beam of `width`; see `search`."""
        ...

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
        """The words of each clip, from the tokens that were found."""
        ...


class TorchEngine:
    """The stock modules, with whatever adapters hang on them."""

    name: str = "torch"
    workers: int = 1
    stretch: float = 2.0  # the decoder reads the padding of every clip at each token
    most_rows: int | None = None

    def __init__(self, backbone: "Whisper"):
        self.backbone = backbone

    def encode(self, features: "Features") -> Float[Tensor, "b t d"]:
        return self.backbone.encode(features).states

    def find(
        self,
        states: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t"] | None,
        prompt: Int[Tensor, "b p"],
        limits: Int[Tensor, " b"],
        width: int = 1,
        ngram: int = 0,
    ) -> list[Found]:
        return search.by_reader(self.backbone, states, mask, prompt, limits, width, ngram)

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
        return word_times.align(
            self.backbone, states, mask, tokens, seconds=seconds, language=language, task=task
        )
