"""What a run costs: parameters that train, and the time of an epoch without its validations."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

from ..errors import Interrupted
from .callbacks import Stop
from .tasks.base import Task


class Meter(Callback):
    """Counts and clocks of one run.

    An epoch is timed by the median over the batches of the seconds per clip, loading included: one batch that
    met a busy machine, or filled a cache, does not move it.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, int] = {}
        """That train, of `adapter`, `head` and `base`."""
        self.clips = self.heard = 0
        """Of an epoch, and of the whole run."""
        self.gpu_mb: float | None = None
        self._per_clip: list[tuple[float, float, int]] = []
        self._mark = (0.0, 0.0)

    def on_train_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        base, model = task.base_parameters.values(), task.model
        adapters = [p for name in task.recipe.train for p in model.parameters_of(name) if p.requires_grad]
        heads = [p for p in task.heads.parameters() if p.requires_grad]
        parts = {"adapter": adapters, "head": heads, "base": base}
        self.parameters = {name: sum(p.numel() for p in part) for name, part in parts.items()}
        self.clips = len(trainer.datamodule.train_clips)  # type: ignore[attr-defined]
        if task.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(task.device)
        self._mark = _now()

    def on_train_batch_end(
        self, trainer: L.Trainer, task: Task, outputs: Any, batch: Any, index: int
    ) -> None:  # type: ignore[override]
        before, self._mark = self._mark, _now()
        if clips := batch.clips:
            wall, cpu = (now - then for now, then in zip(self._mark, before, strict=True))
            self._per_clip.append((wall / clips, cpu / clips, clips))
            self.heard += clips

    def on_validation_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        self._mark = _now()

    def on_train_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        if task.device.type == "cuda":
            self.gpu_mb = torch.cuda.max_memory_allocated(task.device) / 2**20

    def teardown(self, trainer: L.Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        """A run that was asked to stop at its very end is over; what comes after it must hear of that too."""
        if any(isinstance(other, Stop) and other.asked for other in trainer.callbacks):  # type: ignore[attr-defined]
            raise Interrupted

    @property
    def epoch_seconds(self) -> float | None:
        """Wall time of an epoch."""
        return self._median(0)

    @property
    def epoch_cpu_seconds(self) -> float | None:
        """Processor time of an epoch, of all threads of this process: the same on a busy machine."""
        return self._median(1)

    def _median(self, clock: int) -> float | None:
        ranked = sorted((batch[clock], batch[2]) for batch in self._per_clip)
        seen, half = 0, sum(clips for _, clips in ranked) / 2
        for value, clips in ranked:
            seen += clips
            if seen >= half:
                return value * self.clips
        return None


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
