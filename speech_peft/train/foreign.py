"""What a task needs around it in a Lightning trainer of somebody else's making.

Our own trainer ends runs by steps and minutes, resumes at any batch and counts its own clock. Another one has
its own steps, epochs, loggers and checkpoints; what is ours there is the shape of the learning rate, the list
of clips that cannot be read, and the adapter folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from .callbacks import SaveAdapter
from .data.bad import Unreadable
from .data.data import SpeechData
from .tasks.base import Task


class Pace(Callback):
    """Tells the task how far the run is, by the trainer's own steps or epochs; the learning rate follows."""

    def on_train_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        self._tell(trainer, task, 0)

    def on_train_batch_end(
        self, trainer: L.Trainer, task: Task, outputs: Any, batch: Any, index: int
    ) -> None:  # type: ignore[override]
        self._tell(trainer, task, index + 1)

    def _tell(self, trainer: L.Trainer, task: Task, batches: int) -> None:
        by_steps = by_epochs = 0.0
        if trainer.max_steps > 0:
            by_steps = trainer.global_step / trainer.max_steps
        if (trainer.max_epochs or 0) > 0:
            epochs = getattr(getattr(trainer, "datamodule", None), "epochs", None)
            part = batches / epochs.batches if epochs is not None and epochs.batches else 0.0
            by_epochs = (trainer.current_epoch + part) / trainer.max_epochs  # type: ignore[operator]
        task.elapsed.fraction = min(1.0, max(by_steps, by_epochs))


def prepare(task: Task, data: SpeechData) -> None:
    """Make a task and its data fit for any `lightning.Trainer`: real epochs, and our callbacks brought along.

    The adapter is written to the recipe's `out` at the best validation, or at the end without one.
    """
    data.endless = False
    task.brings = [Pace(), Unreadable(data.bad), SaveAdapter(Path(task.recipe.out))]
