"""When a run validates: after the steps it is to, and after its last; once each, however often it is killed.

A validation is owed from the moment its step is done. That is in the state, which is saved next; it is paid
before the following step. A run that is killed between the two pays when it goes on.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from .tasks.base import Task


class Clock(Callback):
    """Tells every process how far the run is, at the same moments; it comes before all that want to know."""

    def on_train_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        task.elapsed.look(trainer, task.recipe.trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, task: Task, outputs: Any, batch: Any, index: int
    ) -> None:  # type: ignore[override]
        task.elapsed.look(trainer, task.recipe.trainer)
        if task.batches_seen % trainer.accumulate_grad_batches:
            return
        every = task.recipe.trainer.valid_every_steps
        due = task.elapsed.fraction >= 1 or (every is not None and task.global_step % every == 0)
        task.owes_validation = due and task.recipe.data.valid is not None


class Validate(Callback):
    """Pays what is owed; Lightning's own schedule, which forgets a validation on resuming, is off."""

    def on_train_batch_start(self, trainer: L.Trainer, task: Task, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self._pay(trainer, task)

    def on_train_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        self._pay(trainer, task)

    def _pay(self, trainer: L.Trainer, task: Task) -> None:
        if not task.owes_validation:
            return
        # What Lightning's own training loop does around a validation.
        loop, logged = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector
        loop.restarting = False
        first = logged._first_loop_iter
        trainer.validating = True
        loop.run()
        trainer.training = True
        logged._first_loop_iter = first
        task.owes_validation = False
        task.elapsed.look(trainer, task.recipe.trainer)
