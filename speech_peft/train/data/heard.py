"""Clips as a model is to hear them, and batches of them: padded, with what is known of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...audio.batch import Example, collate
from ...audio.views import length

GRID_SAMPLES = 8000
"""Half a second at 16 kHz, the step of Whisper's `fit` context."""


@dataclass(frozen=True)
class Bad:
    """A clip that cannot be used."""

    id: str
    audio: str
    reason: str


@dataclass(frozen=True)
class Heard:
    """One clip as the model is to hear it."""

    source: str
    """Recording, place in it and variant of its degradation: the same words mean the same samples."""
    example: Example
    reference: np.ndarray | None = None
    """The clean clip at the rate of a decoder's output."""
    task: str = ""
    """As the manifest's column `task` has it."""
    enrolled: np.ndarray | None = None
    """Other clips of its speaker, for adapters that listen to them."""
    parallel: np.ndarray | None = None
    """The same said in another language, where there is a recording of it and a task asks."""
    views: tuple[np.ndarray, ...] = ()
    """What each microphone heard, where there are several and each is heard by itself."""


@dataclass(frozen=True)
class Batch:
    """Clips padded to the longest, and the clips that could not be had."""

    audio: Float[Tensor, "b s"]
    lengths: Int[Tensor, " b"]
    texts: list[str]
    sources: list[str]
    labels: list[str] = field(default_factory=list)
    """As the manifest has them: "dog", or "dog;rain" where a clip may be several things."""
    bad: tuple[Bad, ...] = ()
    targets: Float[Tensor, "b s"] | None = None
    """The clean clips, sample by sample beside `audio`; None where nothing is restored."""
    references: Float[Tensor, "b n"] | None = None
    """The clean clips at the rate of a decoder's output."""
    said: Mapping[str, list[str]] = field(default_factory=dict)
    """What the manifest says of each clip, for adapters that ask: by Context field, "" where it is silent."""
    enrolled: tuple[Float[Tensor, "b e"], Int[Tensor, " b"]] | None = None
    """Other clips of each clip's speaker, and how many samples of them there are."""
    parallel: Sequence[np.ndarray | None] = ()
    """Of each clip the same said in another language; None where no such recording is there, or asked for."""
    views: int = 1
    """How many rows that follow each other are one clip, heard by different microphones. A clip of fewer has
    rows of no samples, and so has a microphone that recorded nothing."""

    @property
    def languages(self) -> list[str]:
        """Of each clip, "" where the manifest names none."""
        return self.said.get("language", [""] * len(self.texts))

    def to(self, device: torch.device, **options: Any) -> Batch:
        """The same batch on a device."""
        held = {name: getattr(self, name) for name in ("audio", "lengths", "targets", "references")}
        moved = {name: x.to(device, **options) for name, x in held.items() if x is not None}
        if self.enrolled is not None:
            moved["enrolled"] = tuple(x.to(device, **options) for x in self.enrolled)
        return replace(self, **moved)

    @property
    def clips(self) -> int:
        """How many there are, whatever the number of microphones."""
        return len(self.lengths) // self.views

    def first(self, clips: int) -> Batch:
        """Only so many clips."""
        part = slice(clips * self.views)
        held = {name: getattr(self, name) for name in ("targets", "references")}
        return replace(
            self,
            audio=self.audio[part],
            lengths=self.lengths[part],
            texts=self.texts[part],
            sources=self.sources[part],
            labels=self.labels[part],
            said={name: names[part] for name, names in self.said.items()},
            enrolled=self.enrolled and (self.enrolled[0][part], self.enrolled[1][part]),
            parallel=self.parallel[part],
            **{name: x[part] for name, x in held.items() if x is not None},
        )

    @property
    def grid_samples(self) -> int:
        """Where the padding of the batch ends when it is rounded up to the grid."""
        return on_grid(self.audio.shape[1])


def on_grid(samples: int) -> int:
    """The next length of the grid."""
    return max(1, math.ceil(samples / GRID_SAMPLES)) * GRID_SAMPLES


def gather(clips: Sequence[Heard | Bad]) -> Batch:
    """One batch; unreadable clips leave it and are listed."""
    heard = [clip for clip in clips if isinstance(clip, Heard)]
    views = max((len(clip.views) for clip in heard), default=0) or 1
    heard = [view for clip in heard for view in _views(clip, views)]
    whole = collate([clip.example for clip in heard])
    lengths = [length(clip.example.samples) for clip in heard] if views > 1 else None
    enrolled = [torch.from_numpy(clip.enrolled) for clip in heard if clip.enrolled is not None]
    references = [torch.from_numpy(clip.reference) for clip in heard if clip.reference is not None]
    return Batch(
        whole.audio,
        whole.lengths if lengths is None else torch.tensor(lengths),
        [text or "" for text in whole.texts],
        [clip.source for clip in heard],
        [label or "" for label in whole.labels],
        tuple(clip for clip in clips if isinstance(clip, Bad)),
        whole.targets,
        pad_sequence(references, batch_first=True) if references else None,
        {
            "task": [clip.task for clip in heard],
            "language": [clip.example.lang or "" for clip in heard],
        },
        (pad_sequence(enrolled, batch_first=True), torch.tensor([*map(len, enrolled)])) if enrolled else None,
        [clip.parallel for clip in heard],
        views,
    )


def _views(clip: Heard, count: int) -> list[Heard]:
    """A clip as so many rows; where it has fewer views, the others are silent."""
    if count == 1:
        return [clip]
    views = clip.views or (clip.example.samples,)
    silence = np.zeros(1, np.float32)
    rows = (*views, *[silence] * (count - len(views)))
    return [replace(clip, example=replace(clip.example, samples=row)) for row in rows]
