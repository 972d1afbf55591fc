"""The training and validation clips of a recipe, screened and batched, in an order that can be resumed."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from ...audio import io, manifest
from ...audio.batch import DurationBatchSampler
from ...audio.degrade import Degrader
from ...audio.rows import apart
from ...audio.rows.listing import pick, seconds_of, spoken
from ...backbones.base import Backbone
from ...errors import AudioError, ConfigError
from ...recipe.config import degrader_of
from ...recipe.recipe import Recipe
from ...recipe.tasks import ClassifyConfig
from ..tasks.base import Task
from . import labels
from .bad import BadList
from .clips import Clips, Place
from .heard import Bad, on_grid
from .joined import JoinedBatches, Windows
from .targets import Targets
from .workers import loader

Batches = DurationBatchSampler | JoinedBatches


class Stream:
    """Batches of places, epoch after epoch without end, from batch `start` on.

    To Lightning the run is one endless epoch, so that there is one kind of resume: from batch `start` of a
    stream that is the same every time.
    """

    def __init__(self, sampler: Batches | GridBatches, start: int):
        self.sampler, self.start = sampler, start

    def __iter__(self) -> Iterator[list[Place]]:
        skip, epoch = self.start, 0
        while True:
            self.sampler.set_epoch(epoch)
            batches = list(self.sampler)
            if not batches:
                raise ConfigError("data.train: too few clips for one batch on every process")
            for batch in batches[skip:]:
                yield [(epoch, index) for index in batch]
            skip, epoch = max(0, skip - len(batches)), epoch + 1


class Epochs:
    """Batches of places, one epoch each time they are asked for: what Lightning's own loop counts."""

    def __init__(self, sampler: Batches | GridBatches, start: int):
        self.sampler, self.epoch, self.batches = sampler, start, 0
        """The epoch that comes next, and how many batches the last one had."""

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        self.sampler.set_epoch(epoch)
        batches = list(self.sampler)
        self.batches = len(batches)
        if not batches:
            raise ConfigError("data.train: too few clips for one batch on every process")
        yield from ([(epoch, index) for index in batch] for batch in batches)


class GridBatches:
    """Batches of clips that share one padded length, so that no clip's states depend on its neighbours."""

    def __init__(
        self,
        lengths: Sequence[int],
        samples_per_batch: float,
        seed: int,
        rank: int,
        world: int,
        shuffle: bool,
    ):
        each = np.asarray(lengths)
        self.by_length = {int(length): np.flatnonzero(each == length) for length in np.unique(each)}
        self.samples_per_batch, self.seed, self.shuffle = samples_per_batch, seed, shuffle
        self.rank, self.world, self.epoch = rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        batches: list[list[int]] = []
        for length, indices in sorted(self.by_length.items()):
            if self.shuffle:
                indices = generator.permutation(indices)
            size = max(1, int(self.samples_per_batch // length))
            batches += [indices[i : i + size].tolist() for i in range(0, len(indices), size)]
        if self.shuffle:
            batches = [batches[i] for i in generator.permutation(len(batches))]
        # Every process takes the same number of batches; what is left over waits for the next shuffle.
        whole = len(batches) // self.world * self.world
        yield from batches[self.rank : whole : self.world]


class SpeechData(L.LightningDataModule):
    """The training and validation clips of a recipe, screened: bad ones are listed before the first step."""

    def __init__(self, recipe: Recipe, backbone: Backbone, out: Path | None = None):
        super().__init__()
        self.recipe, self.backbone = recipe, backbone
        self.sample_rate = backbone.sample_rate
        path = (out or Path(recipe.out)) / "bad_samples.jsonl"
        self.bad = BadList(path, recipe.data.max_bad_fraction)
        self.endless = True
        """Whether a run is one epoch without end, which our own trainer resumes at any batch."""
        self.epochs: Epochs | None = None
        self.classify = recipe.task if isinstance(recipe.task, ClassifyConfig) else None
        data = recipe.data
        degrader = degrader_of(recipe)
        self.train_clips, self.train_seconds = self._screen(
            "train", self._rows("train", data.train), degrader
        )
        if data.join:
            longest = self._longest(degrader)
            self.train_clips.windows = Windows(self.train_seconds, data.join, recipe.seed, longest)
        self.valid_clips: Clips | None = None
        if data.valid is not None:
            heard = replace(degrader, clean=0.0) if degrader and data.degrade_valid else None
            rows = self._rows("valid", data.valid)
            self.valid_clips, self.valid_seconds = self._screen("valid", rows, heard)
        if data.enrol:
            for clips in filter(None, (self.train_clips, self.valid_clips)):
                clips.enrolling(data.enrol.seconds, recipe.seed)
        self.bad.write()

    def restore(self, targets: Targets) -> None:
        """Let every clip come with its clean side."""
        for clips in (self.train_clips, self.valid_clips):
            if clips is not None:
                clips.targets = targets

    def beside(self) -> None:
        """Let every training clip come with what it was before it was degraded."""
        self.train_clips.beside = True

    @property
    def texts(self) -> Iterator[str]:
        """What is said in the training clips."""
        return (row.text or "" for row in self.train_clips.rows)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes that the training clips show, in the order of the logits."""
        return labels.classes(self.train_clips.rows, self.classify.labels if self.classify else None)

    def _rows(self, part: str, path: str) -> Sequence[manifest.Row]:
        """The rows that the recipe chooses, with nothing wrong in what they say."""
        data = self.recipe.data
        wanted = data.train_where if part == "train" else data.valid_where
        rows = manifest.listed(path, data.columns)
        if self.classify:
            rows = manifest.labelled(rows, path)
        if wanted:
            rows = manifest.where(rows, wanted, path)
        if self.classify and not self.classify.multi_label:
            labels.single(rows, part)
        if part == "valid":
            if told := apart.told(self.train_clips.rows, rows, by_columns=bool(wanted)):
                rank_zero_only(print)(f"warning: {told}", file=sys.stderr, flush=True)
            if self.classify:
                labels.all_known(rows, self.labels, part)
                return labels.mixed(rows, data.max_valid) if data.max_valid else rows
            return rows[: data.max_valid]
        return rows

    def _screen(
        self, part: str, rows: Sequence[manifest.Row], degrader: Degrader | None
    ) -> tuple[Clips, np.ndarray]:
        data = self.recipe.data
        seconds = self._lengths(part, rows, self._longest(degrader))
        usable = np.flatnonzero(~np.isnan(seconds))
        if part == "train" and data.per_class:
            usable = usable[labels.few_places(pick(rows, usable), data.per_class, self.recipe.seed)]
            rows, seconds = pick(rows, usable), seconds[usable]
            usable = np.arange(len(rows))
        by_views = data.channels == "views"
        clips = Clips(pick(rows, usable), self.sample_rate, degrader, by_views)
        seconds = seconds[usable]
        broken: set[int] = set()
        if seconds.sum() <= 3600 * data.preload_hours:
            for index, row in enumerate(clips.rows):
                try:
                    clips.keep(index)
                except AudioError as error:
                    broken.add(index)
                    self.bad.add(part, Bad(row.id, error.path, error.reason))
        if broken:
            clips.drop(broken)
            seconds = np.delete(seconds, list(broken))
        if self.classify:
            labels.none_lost(rows, clips.rows, part, {bad.id: bad.reason for bad in self.bad})
        self.bad.of[part] = len(rows)
        self.bad.check(part)
        if not len(clips):
            raise ConfigError(f"data.{part}: there is no clip")
        clips.check(part)
        return clips, seconds

    def _longest(self, degrader: Degrader | None) -> float:
        """Seconds that a clip may last before it is degraded, which may stretch it."""
        stretch = degrader.stretch[1] if degrader else 1.0
        return min(self.recipe.data.max_seconds, (self.backbone.max_seconds or math.inf) / stretch)

    def _lengths(self, part: str, rows: Sequence[manifest.Row], longest: float) -> np.ndarray:
        """The seconds of each row; NaN, with the reason listed, of one that cannot be used.

        Only rows of which the manifest does not say enough, or something that is wrong, are looked at one by
        one.
        """
        data = self.recipe.data
        seconds = seconds_of(rows).copy()
        good = (seconds >= data.min_seconds) & (seconds <= longest)
        if self.recipe.task.name == "asr":
            good &= spoken(rows)
        for place in np.flatnonzero(~good):
            row = rows[int(place)]
            try:
                seconds[place] = self._usable(row, longest)
            except AudioError as error:
                seconds[place] = math.nan
                self.bad.add(part, Bad(row.id, error.path, error.reason))
        return seconds

    def _usable(self, row: manifest.Row, longest: float) -> float:
        """The clip's length; raises AudioError when it cannot be used."""
        data = self.recipe.data
        seconds = row.duration if row.duration is not None else io.info(row.audio).seconds - row.start
        if not row.text and self.recipe.task.name == "asr":
            raise AudioError(row.audio, "has no text")
        if not data.min_seconds <= seconds <= longest:
            raise AudioError(
                row.audio, f"lasts {seconds:.2f} s; wanted {data.min_seconds:g} to {longest:g} s"
            )
        return seconds

    # ---- loaders ------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Any]:
        data, trainer = self.recipe.data, self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        task = trainer.lightning_module if trainer else None
        start = task.batches_seen if isinstance(task, Task) else 0
        windows = self.train_clips.windows
        if data.cache:
            sampler = self._grid(self.train_seconds, rank, world, shuffle=True)
        elif windows is not None:
            sampler = JoinedBatches(windows, data.seconds_per_batch, self.recipe.seed, rank, world)
        else:
            sampler = DurationBatchSampler(
                self.train_seconds,
                data.seconds_per_batch,
                seed=self.recipe.seed,
                rank=rank,
                world=world,
                shuffle=True,
            )
        # The cache lives in this process, and from the second epoch there is nothing left to load.
        workers = 0 if data.cache else data.workers
        if self.endless:
            return loader(self.train_clips, Stream(sampler, start), workers)
        self.epochs = Epochs(sampler, trainer.current_epoch if trainer else 0)
        return loader(self.train_clips, self.epochs, workers)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """In batches of one padded length, as inference has them; every process sees all of it."""
        if self.valid_clips is None:
            return []
        batches = self._grid(self.valid_seconds, 0, 1, shuffle=False)
        return loader(self.valid_clips, [[(0, i) for i in batch] for batch in batches], 0)

    def once_through(self) -> DataLoader[Any]:
        """Every training clip once, in batches of one padded length."""
        batches = self._grid(self.train_seconds, 0, 1, shuffle=False)
        return loader(self.train_clips, [[(0, i) for i in batch] for batch in batches], 0)

    def _grid(self, seconds: np.ndarray, rank: int, world: int, shuffle: bool) -> GridBatches:
        lengths = [on_grid(round(s * self.sample_rate)) for s in seconds.tolist()]
        per_batch = self.recipe.data.seconds_per_batch * self.sample_rate
        return GridBatches(lengths, per_batch, self.recipe.seed, rank, world, shuffle)
