"""Clips of a manifest, one by one and in batches: decoded, degraded, padded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ...audio import manifest
from ...audio.batch import Example, collate
from ...audio.containers.held import print_of
from ...audio.degrade import Degrader
from ...audio.rows.listing import pick
from ...errors import AudioError, ConfigError
from .decoded import DECODED, decode
from .joined import Window, Windows
from .targets import Targets
from .voices import Voices

GRID_SAMPLES = 8000
"""Half a second at 16 kHz, the step of Whisper's `fit` context."""
_ALONE = (
    "babble is made of other utterances, and the manifest has only one that can be used. "
    "Add utterances, or leave the step out"
)
Place = tuple[int, int]
"""Epoch, and row or window of the epoch: what a clip of the stream is known by."""


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

    def first(self, clips: int) -> Batch:
        """Only so many clips."""
        part = slice(clips)
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
    whole = collate([clip.example for clip in heard])
    enrolled = [torch.from_numpy(clip.enrolled) for clip in heard if clip.enrolled is not None]
    references = [torch.from_numpy(clip.reference) for clip in heard if clip.reference is not None]
    return Batch(
        whole.audio,
        whole.lengths,
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
    )


def _task(row: manifest.Row) -> str:
    return str(row.extra.get("task") or "")


class Clips(Dataset[Heard | Bad]):
    """The clips of a manifest, decoded once or each time, degraded anew in every epoch."""

    def __init__(self, rows: Sequence[manifest.Row], sample_rate: int, degrader: Degrader | None):
        self.rows, self.sample_rate, self.degrader = rows, sample_rate, degrader
        self.cached: Callable[[str, int], bool] | None = None
        """Whether the prefix cache knows a source of this many samples: such a clip is not loaded again."""
        self.targets: Targets | None = None
        """What makes the clean side of each clip, for a task that restores."""
        self.windows: Windows | None = None
        """Where neighbours are joined: places then are windows of an epoch."""
        self._enrol: tuple[tuple[float, float], int] | None = None
        self.beside = False
        """Whether each clip comes with what it was before it was degraded, as its target."""
        self.parallel = False
        """Whether clips come with the same said in another language, which is their `target_audio`."""
        self._kept: dict[int, np.ndarray] = {}
        self._lengths: dict[int, int] = {}

    def keep(self, index: int) -> None:
        """Decode now and stay in memory, which loader processes share by forking."""
        self._kept[index] = DECODED.load(self.rows[index], self.sample_rate)

    def drop(self, indices: set[int]) -> None:
        """Leave these clips out."""
        left = [index for index in range(len(self.rows)) if index not in indices]
        self.rows = pick(self.rows, left)
        self._kept = {new: self._kept[old] for new, old in enumerate(left) if old in self._kept}

    def check(self, part: str) -> None:
        """Raises ConfigError where a clip could not be degraded for want of others."""
        if self.degrader and self.degrader.needs_others and len(self.rows) < 2:
            raise ConfigError(f"data.{part}: {_ALONE}")

    def samples(self, index: int) -> np.ndarray:
        """The clip as recorded."""
        return self._kept[index] if index in self._kept else self._load(index)

    def _load(self, index: int) -> np.ndarray:
        return decode(self.rows[index], self.sample_rate)

    def __getitem__(self, place: Place) -> Heard | Bad:
        epoch, index = place
        if self.windows is not None:
            window = self.windows.of(epoch)[index]
            if window.last > window.first:
                return self._joined(epoch, window)
            index = window.first
        row = self.rows[index]
        try:
            source, parallel = self._source((epoch, index)), self._parallel(row)
        except OSError as error:  # it was there when the run began
            return Bad(row.id, str(row.audio), error.strerror or str(error))
        except AudioError as error:
            return Bad(row.id, error.path, error.reason)
        if self.cached and index in self._lengths and self.cached(source, self._lengths[index]):
            silence = np.zeros(self._lengths[index], np.float32)
            example = Example(row.id, silence, row.text, row.label, lang=row.lang)
            return Heard(source, example, None, _task(row), self._enrolled(epoch, index), parallel)
        try:
            samples, clean, reference = self.samples(index), None, None
            if self.targets is not None:
                variant = self.degrader.variant(epoch) if self.degrader else 0
                samples, clean, reference = self.targets.of(row, samples, variant)
            samples, before = self._degraded(samples, row.id, epoch, index)
            enrolled = self._enrolled(epoch, index)
        except AudioError as error:
            return Bad(row.id, error.path, error.reason)
        if self.cached:
            self._lengths[index] = len(samples)
        clean = before if self.beside else clean
        example = Example(row.id, samples, row.text, row.label, lang=row.lang, target=clean)
        return Heard(source, example, reference, _task(row), enrolled, parallel)

    def _enrolled(self, epoch: int, index: int) -> np.ndarray | None:
        return None if self._enrol is None else self._voices.same(index, *self._enrol, epoch)

    @cached_property
    def _voices(self) -> Voices:
        return Voices(self.rows, self.samples, self.sample_rate)

    def enrolling(self, seconds: tuple[float, float], seed: int) -> None:
        """Let every clip come with other clips of its speaker."""
        self._voices.check()
        self._enrol = seconds, seed

    def _parallel(self, row: manifest.Row) -> np.ndarray | None:
        if not self.parallel or row.target_audio is None:
            return None
        return DECODED.load(replace(row, audio=row.target_audio, start=0.0, duration=None), self.sample_rate)

    def _joined(self, epoch: int, window: Window) -> Heard | Bad:
        """Neighbours one after the other, with silence between; one that cannot be read takes all along."""
        rows, parts = [self.rows[index] for index in window.clips], []
        id = f"{rows[0].id}..{rows[-1].id}"
        try:
            for index, pause in zip(window.clips, (*window.pauses, 0.0), strict=True):
                parts += [self.samples(index), np.zeros(round(pause * self.sample_rate), np.float32)]
            samples, before = self._degraded(np.concatenate(parts), id, epoch, window.first)
        except AudioError as error:
            return Bad(id, error.path, error.reason)
        text = " ".join(row.text or "" for row in rows)
        return Heard(
            f"{id} of epoch {epoch}",
            Example(id, samples, text, lang=rows[0].lang, target=before if self.beside else None),
            task=_task(rows[0]) if len({_task(row) for row in rows}) == 1 else "",
        )

    def _degraded(
        self, samples: np.ndarray, id: str, epoch: int, index: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is heard, and what it was before it was made worse."""
        if self.degrader is None:
            return samples, samples
        pool, stranger = partial(self._other, index), partial(self._voices.stranger, index)
        made = self.degrader(samples, self.sample_rate, id=id, epoch=epoch, pool=pool, stranger=stranger)
        return made.samples, made.clean

    def _source(self, place: Place) -> str:
        epoch, index = place
        row = self.rows[index]
        variant = self.degrader.variant(epoch) if self.degrader else "as recorded"
        return f"{print_of(row.audio)}|{row.start}|{row.duration}|{row.id}|{variant}"

    def _other(self, own: int, generator: np.random.Generator) -> np.ndarray:
        """An utterance other than the clip's own, for babble."""
        if len(self.rows) < 2:
            raise ConfigError(f"degrade: {_ALONE}")
        drawn = int(generator.integers(len(self.rows) - 1))
        return self.samples((own + 1 + drawn) % len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)
