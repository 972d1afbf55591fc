"""Clips of a manifest, one by one: decoded, degraded, joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ...audio import manifest, views
from ...audio.batch import Example
from ...audio.containers.held import print_of
from ...audio.degrade import Degrader
from ...audio.rows.listing import pick
from ...errors import AudioError, ConfigError
from .decoded import DECODED, decode
from .heard import Bad, Heard
from .joined import Window, Windows
from .targets import Targets
from .voices import Voices

_ALONE = (
    "babble is made of other utterances, and the manifest has only one that can be used. "
    "Add utterances, or leave the step out"
)
Place = tuple[int, int]
"""Epoch, and row or window of the epoch: what a clip of the stream is known by."""


def _task(row: manifest.Row) -> str:
    return str(row.extra.get("task") or "")


class Clips(Dataset[Heard | Bad]):
    """The clips of a manifest, decoded once or each time, degraded anew in every epoch."""

    def __init__(
        self,
        rows: Sequence[manifest.Row],
        sample_rate: int,
        degrader: Degrader | None,
        by_views: bool = False,
    ):
        """`by_views`: each microphone of a clip is heard by itself."""
        self.rows, self.sample_rate, self.degrader, self.by_views = rows, sample_rate, degrader, by_views
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
        self._kept: dict[int, tuple[np.ndarray, ...]] = {}
        self._lengths: dict[int, int] = {}

    def keep(self, index: int) -> None:
        """Decode now and stay in memory, which loader processes share by forking."""
        if self.by_views:
            self._kept[index] = self._load(index)
        else:
            self._kept[index] = (DECODED.load(self.rows[index], self.sample_rate),)

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
        """The clip as recorded; of several microphones, by the first."""
        return self.recorded(index)[0]

    def recorded(self, index: int) -> tuple[np.ndarray, ...]:
        """What each microphone recorded; all of it at once where they are not told apart."""
        return self._kept[index] if index in self._kept else self._load(index)

    def _load(self, index: int) -> tuple[np.ndarray, ...]:
        row = self.rows[index]
        if not self.by_views:
            return (decode(row, self.sample_rate),)
        return views.load((row.audio, *row.others), self.sample_rate, row.start, row.duration)

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
            recorded, clean, reference = self.recorded(index), None, None
            if self.targets is not None:
                variant = self.degrader.variant(epoch) if self.degrader else 0
                samples, clean, reference = self.targets.of(row, recorded[0], variant)
                recorded = (samples,)
            heard, before = self._degraded(recorded, row.id, epoch, index)
            enrolled = self._enrolled(epoch, index)
        except AudioError as error:
            return Bad(row.id, error.path, error.reason)
        if self.cached:
            self._lengths[index] = len(heard[0])
        clean = before if self.beside else clean
        example = Example(row.id, heard[0], row.text, row.label, lang=row.lang, target=clean)
        apart = heard if len(heard) > 1 else ()
        return Heard(source, example, reference, _task(row), enrolled, parallel, apart)

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
            (samples, *_), before = self._degraded((np.concatenate(parts),), id, epoch, window.first)
        except AudioError as error:
            return Bad(id, error.path, error.reason)
        text = " ".join(row.text or "" for row in rows)
        return Heard(
            f"{id} of epoch {epoch}",
            Example(id, samples, text, lang=rows[0].lang, target=before if self.beside else None),
            task=_task(rows[0]) if len({_task(row) for row in rows}) == 1 else "",
        )

    def _degraded(
        self, recorded: tuple[np.ndarray, ...], id: str, epoch: int, index: int
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """What is heard by each microphone, and what it was before it was made worse."""
        if self.degrader is None:
            return recorded, recorded[0]
        pool, stranger = partial(self._other, index), partial(self._voices.stranger, index)
        drawing: Any = {"id": id, "epoch": epoch, "pool": pool, "stranger": stranger}
        made = self.degrader.of_views(recorded, self.sample_rate, **drawing)
        return made.views, made.clean

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
