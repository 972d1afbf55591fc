"""Which language a recording is in: its own longest window tells, before any of it is decoded."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...audio.windows.chunks import SAMPLE_RATE, Window
from ...backbones.whisper import Whisper
from ...decoders.words import whisper_text
from ...folders.reader import Piece, Recording
from ..result import Choice

ENOUGH_SECONDS = 25.0
"""Nothing longer is waited for: a window holds 30 s."""
HELD_SECONDS = 300.0
"""Of windows of one recording that wait for a longer one; so much is held in memory."""


@dataclass(eq=False)
class Spoken(Recording):
    """An input whose language is asked of its sound."""

    language: str | None = None
    telling: Window | None = None
    """The window that tells the language, once it is known which."""
    settled: bool = False
    """Whether what is chosen for it was known before it was heard."""
    choices: dict[float, Choice] = field(default_factory=dict)
    """Where adapters are chosen for it: by the second from which on they run."""

    def choice_at(self, start: float) -> Choice | None:
        """What was chosen last before so many seconds."""
        before = [second for second in self.choices if second <= start]
        return self.choices[max(before)] if before else None


S = TypeVar("S", bound=Spoken)


def telling_first(events: Iterable[Piece[S] | S]) -> Iterator[Piece[S] | S]:
    """The same events, of each recording the window first that tells its language.

    It is the longest one of the whole recording, or of its first five minutes of windows; the first of
    `ENOUGH_SECONDS` is long enough. It depends on the recording alone. Expects the windows of a recording one
    after the other.
    """
    held: list[Piece[S]] = []
    seconds = 0.0
    for event in events:
        if isinstance(event, Piece) and event.file.telling is None:
            held.append(event)
            seconds += event.window.seconds
            if event.window.seconds < ENOUGH_SECONDS and seconds < HELD_SECONDS:
                continue
            event = None
        if held:
            longest = max(held, key=lambda piece: piece.window.seconds)
            longest.file.telling = longest.window
            yield longest
            yield from (piece for piece in held if piece is not longest)
            held, seconds = [], 0.0
        if event is not None:
            yield event


def hear_language(backbone: Whisper, batch: Sequence[Piece[S]], states: Float[Tensor, "b*v t d"]) -> None:
    """The language of each recording whose telling window is in the batch, by that window's states.

    Where a window has several microphones, it is told by the first that heard anything.
    """
    telling = [i for i, piece in enumerate(batch) if piece.file.telling is piece.window]
    if not telling:
        return
    views = len(states) // len(batch)
    rows = [i * views + batch[i].window.first_heard for i in telling]
    found = whisper_text.detect_language(backbone, states[torch.tensor(rows, device=states.device)])
    for i, shares in zip(telling, found, strict=True):
        batch[i].file.language = max(shares, key=shares.__getitem__)


def first_seconds(piece: Piece[S], seconds: float) -> Piece[S]:
    """The beginning of a window that is longer; any other as it is."""
    window = piece.window
    if window.seconds <= seconds:
        return piece
    return Piece(piece.file, Window(window.start, window.samples[: round(seconds * SAMPLE_RATE)]))
