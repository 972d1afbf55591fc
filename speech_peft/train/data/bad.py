"""Clips that cannot be used: listed with the reason, counted, and too many of them end the run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

from ...errors import SpeechPeftError
from ...files.atomic import write_text
from ...terminal.door import complain
from ..tasks.base import Task
from .heard import Bad

PARTS: tuple[str, ...] = ("train", "valid")


class BadList:
    """The bad clips of a run, each once, and the file that names them."""

    def __init__(self, path: Path, max_fraction: float):
        self.path, self.max_fraction = path, max_fraction
        self.clips: dict[str, dict[str, Bad]] = {part: {} for part in PARTS}
        """By part of the data and id."""
        self.of: dict[str, int] = dict.fromkeys(PARTS, 0)
        """How many rows each part has in all."""

    def add(self, part: str, bad: Bad) -> None:
        self.clips[part].setdefault(bad.id, bad)

    def knows(self, part: str, bad: Bad) -> bool:
        return bad.id in self.clips[part]

    def __iter__(self) -> Iterator[Bad]:
        return (bad for part in self.clips.values() for bad in part.values())

    def __len__(self) -> int:
        return sum(map(len, self.clips.values()))

    def write(self) -> None:
        """The file, a line for each; without a bad clip there is none, not even an earlier run's."""
        if not len(self):
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, "".join(json.dumps(vars(bad), ensure_ascii=False) + "\n" for bad in self))

    def check(self, part: str) -> None:
        """Raises SpeechPeftError when more of a part is bad than the recipe allows."""
        bad, rows = self.clips[part], self.of[part]
        if len(bad) <= self.max_fraction * rows:
            return
        self.write()
        first = next(iter(bad.values()))
        raise SpeechPeftError(
            f"data.{part}: {len(bad)} of {rows} clips cannot be used "
            f"(data.max_bad_fraction is {self.max_fraction:g}); reasons in {self.path}. "
            f"First: {first.id}: {first.reason}"
        )

    def summary(self) -> str:
        """`3 of 120 training clips are left out`, for those who look at the screen only."""
        counts = ", ".join(
            f"{len(bad)} of {self.of[part]} ({part})" for part, bad in self.clips.items() if bad
        )
        return f"clips left out: {counts}; reasons in {self.path}"


class Unreadable(Callback):
    """Takes note of clips that fail while the run is on, in whichever process their loader works."""

    def __init__(self, bad: BadList):
        self.bad = bad
        self._said = -1

    def state_dict(self) -> dict[str, Any]:
        return {part: [vars(bad) for bad in clips.values()] for part, clips in self.bad.clips.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, clips in state_dict.items():
            for fields in clips:
                self.bad.add(part, Bad(**fields))

    def on_train_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        if trainer.is_global_zero:
            self.bad.write()  # a resumed run knows those of its earlier parts
        self._tell(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, task: Task, outputs: Any, batch: Any, index: int
    ) -> None:  # type: ignore[override]
        new = [bad for bad in batch.bad if not self.bad.knows("train", bad)]
        # A list is sent around only where a process has something to tell.
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(bool(new), all=False):
            every: list[list[Bad]] = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(every, new)
            new = [bad for part in every for bad in part]
        self._note(trainer, "train", new)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        task: Task,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # type: ignore[override]
        self._note(trainer, "valid", batch.bad)

    def on_train_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        self._tell(trainer)

    def _note(self, trainer: L.Trainer, part: str, found: Sequence[Bad]) -> None:
        new = [bad for bad in found if not self.bad.knows(part, bad)]
        for bad in new:
            self.bad.add(part, bad)
        if new and trainer.is_global_zero:
            self.bad.write()
        if new:
            self.bad.check(part)

    def _tell(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero and len(self.bad) > max(0, self._said):
            complain(self.bad.summary())
        self._said = len(self.bad)
