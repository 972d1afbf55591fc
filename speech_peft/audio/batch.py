"""Clips of like length together, so that a batch is a number of seconds and little of it is padding.

Every process computes the whole plan of an epoch from (seed, epoch) and takes its share. One step gives each
rank a batch of the same bucket, so ranks do not wait for one long batch, and all have the same number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.utils.data import Sampler

from ..errors import ConfigError
from .io import Samples


@dataclass(frozen=True)
class Example:
    """One clip, decoded, with what is known about it."""

    id: str
    samples: Samples
    text: str | None = None
    label: str | None = None
    speaker: str | None = None
    lang: str | None = None
    target: Samples | None = None  # the clean clip of a noisy one, of the same length


@dataclass(frozen=True)
class Batch:
    """Clips padded with zeros to the longest."""

    ids: tuple[str, ...]
    audio: Float[Tensor, "b s"]
    lengths: Int[Tensor, " b"]  # samples
    texts: tuple[str | None, ...]
    labels: tuple[str | None, ...]
    langs: tuple[str | None, ...] = ()
    targets: Float[Tensor, "b s"] | None = None

    @property
    def padding(self) -> float:
        """The share of `audio` that is padding."""
        return 1.0 - float(self.lengths.sum()) / max(1, self.audio.numel())


def collate(examples: Sequence[Example]) -> Batch:
    """One batch of the examples, in their order; of no examples, an empty batch."""
    with_target = [example.target for example in examples if example.target is not None]
    if with_target and len(with_target) != len(examples):
        lacking = next(example.id for example in examples if example.target is None)
        raise ConfigError(f"{lacking}: has no target audio, other clips of its batch have")
    return Batch(
        ids=tuple(example.id for example in examples),
        audio=_padded([example.samples for example in examples]),
        lengths=torch.tensor([len(example.samples) for example in examples], dtype=torch.long),
        texts=tuple(example.text for example in examples),
        labels=tuple(example.label for example in examples),
        langs=tuple(example.lang for example in examples),
        targets=_padded(with_target) if with_target else None,
    )


def _padded(clips: Sequence[Float32[np.ndarray, " _"]]) -> Float[Tensor, "b s"]:
    padded = torch.zeros(len(clips), max((len(clip) for clip in clips), default=0))
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(np.asarray(clip, np.float32))
    return padded


class DurationBatchSampler(Sampler[list[int]]):
    """Batches of indices for `DataLoader(batch_sampler=...)`, each at most `seconds_per_batch` when padded.

    Clips are sorted by length, blurred by `JITTER` so that batches differ between epochs, and cut into steps:
    as many clips for each rank as fit, none shorter than the longest / (1 + SPREAD). Where a step has fewer
    clips than ranks, some are taken again, because every rank must have a batch. A clip longer than
    `seconds_per_batch` is a batch of its own. `shuffle=False` keeps the order by length, long first.

    To go on where a run stopped: `load_state_dict(state)`, where state is (epoch, next batch) of this rank.
    """

    SPREAD = 0.3
    JITTER = 0.05

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        seconds_per_batch: float,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        start_batch: int = 0,
    ):
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} of {world}: expected 0 <= rank < world")
        if seconds_per_batch <= 0:
            raise ConfigError(f"seconds_per_batch is {seconds_per_batch}; expected > 0")
        self.durations = np.asarray(durations, np.float64)
        bad = np.flatnonzero(~((self.durations > 0) & np.isfinite(self.durations)))
        if len(bad):
            raise ConfigError(f"clip {bad[0]}: its duration is {durations[bad[0]]}; expected seconds > 0")
        self.seconds_per_batch, self.seed, self.shuffle = seconds_per_batch, seed, shuffle
        self.rank, self.world = rank, world
        self.set_epoch(0, start_batch)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """The next iteration is this epoch's, from this batch on."""
        self.epoch, self.start_batch = epoch, start_batch
        self._plan = self._steps()

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "start_batch": self.start_batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.set_epoch(int(state["epoch"]), int(state["start_batch"]))

    @property
    def steps(self) -> int:
        """Batches of the whole epoch, the same on every rank."""
        return len(self._plan)

    def __len__(self) -> int:
        """Batches that the next iteration gives."""
        return max(0, self.steps - self.start_batch)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._plan[self.start_batch :]:
            yield step[self.rank]

    def padding(self) -> float:
        """The share of padding in this epoch's batches, over all ranks."""
        batches = [self.durations[batch] for step in self._plan for batch in step]
        padded = sum(batch.max() * len(batch) for batch in batches)
        return 1.0 - sum(batch.sum() for batch in batches) / padded if padded else 0.0

    def _steps(self) -> list[list[list[int]]]:
        """Steps -> ranks -> clips."""
        generator = np.random.default_rng((self.seed, self.epoch))
        blur = (
            generator.uniform(1 - self.JITTER, 1 + self.JITTER, len(self.durations)) if self.shuffle else 1.0
        )
        order = np.argsort(-self.durations * blur, kind="stable")
        ordered, at, plan = self.durations[order], 0, []
        while at < len(order):
            clips = order[at : at + self._room(ordered[at:])]
            at += len(clips)
            if self.shuffle:
                clips = generator.permutation(clips)
            clips = np.resize(clips, max(len(clips), self.world))
            plan.append([share.tolist() for share in np.array_split(clips, self.world)])
        return [plan[step] for step in generator.permutation(len(plan))] if self.shuffle else plan

    def _room(self, durations: np.ndarray) -> int:
        """How many of the clips, the longest of which come first, one step of all ranks takes."""
        reach = durations[: self.world * max(1, int(2 * self.seconds_per_batch // durations[0]) + 1)]
        longest = np.maximum.accumulate(reach)
        share = np.ceil(np.arange(1, len(reach) + 1) / self.world)  # clips on the fullest rank
        fits = (share * longest <= self.seconds_per_batch) & (reach * (1 + self.SPREAD) >= longest)
        return len(reach) if fits.all() else max(self.world, int(fits.argmin()))
