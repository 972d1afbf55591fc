"""A recording on its way through the model, and what was heard in it so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ...audio.windows.chunks import Window
from ...decoders.words.decoded import Decoded
from ...decoders.words.word_times import TimedWord
from ...folders.reader import Piece
from ..result import Word
from .languages import Spoken


@dataclass(eq=False)
class File(Spoken):
    """An input on its way."""

    heard: dict[float, tuple[Decoded, float, tuple[Word, ...]]] = field(default_factory=dict)
    """By where the window starts: its text, the seconds until its end, and its words."""

    views: dict[float, int] = field(default_factory=dict)
    """By where a window starts: of several microphones the one whose text is given, counted from 1."""

    routes: dict[float, Tensor] = field(default_factory=dict)
    """By where a window starts: what a fusion chose in it, `(site, step, adapter)`."""

    def hear(self, window: Window, text: Decoded, words: Sequence[TimedWord]) -> None:
        placed = tuple(Word(w.word, *window.placed(w.start, w.end), w.probability) for w in words)
        self.heard[window.start] = (text, window.end - window.start, placed)


FilePiece = Piece[File]
Group = list[list[FilePiece]]
"""Batches of the encoder, each of one padded length, that are decoded together."""
