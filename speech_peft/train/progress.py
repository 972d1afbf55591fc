"""What a run shows: metrics.jsonl always, a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from ..files import json_text
from ..files.atomic import write_text
from ..folders.progress import pace
from .tasks.base import Task


class Metrics(Callback):
    """metrics.jsonl: a row every few steps and one per validation; TensorBoard too when asked."""

    def __init__(self, out: Path, tensorboard: bool):
        self.path, self.out, self.tensorboard = out / "metrics.jsonl", out, tensorboard
        self._writer: Any = None
        self.rows: list[dict[str, Any]] = []
        """Of this process's part of the run."""
        self._audio = self._padded = self._loss = 0.0
        self._count, self._since = 0, time.monotonic()
        self._first = True

    def on_train_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        self._since, self._first = time.monotonic(), trainer.is_global_zero
        if not self._first:
            return
        kept = _rows_until(self.path, task) if task.global_step else []
        write_text(self.path, "".join(json_text.write(row) + "\n" for row in kept))
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.out / "tensorboard", purge_step=task.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, task: Task, outputs: Any, batch: Any, index: int
    ) -> None:  # type: ignore[override]
        seconds = batch.lengths.sum().item() / task.backbone.sample_rate
        self._audio += seconds
        self._padded += len(batch.lengths) * batch.audio.shape[1] / task.backbone.sample_rate
        if math.isfinite(loss := float(outputs["task_loss"])):
            self._loss += loss
            self._count += 1
        if task.batches_seen % (task.recipe.trainer.log_every_steps * trainer.accumulate_grad_batches) == 0:
            passed = time.monotonic() - self._since
            self._write(
                {
                    "step": task.global_step,
                    "loss": round(self._loss / self._count, 6) if self._count else None,
                    "lr": trainer.optimizers[0].param_groups[0]["lr"],
                    "seconds": round(task.elapsed.seconds, 3),
                    "fraction": round(task.elapsed.fraction, 5),
                    "audio_hours_per_second": round(self._audio * trainer.world_size / 3600 / passed, 6),
                    "padding": round(1 - self._audio / max(self._padded, 1e-9), 4),
                    **{key: round(value, 4) for key, value in task.procedures.numbers().items()},
                    **({"left_out": task.not_finite.in_all} if task.not_finite.in_all else {}),
                }
            )
            self._audio = self._padded = self._loss = 0.0
            self._count, self._since = 0, time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        if task.scores is not None and not trainer.sanity_checking:
            scores = task.scores
            self._write(
                {
                    "step": task.global_step,
                    f"valid_{scores.name}": round(scores.value, 6),
                    "valid_loss": round(scores.loss, 6),
                    "seconds": round(task.elapsed.seconds, 3),
                }
            )
        self._since = time.monotonic()

    def _write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if not self._first:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json_text.write(row) + "\n")
        for key, value in row.items() if self._writer else ():
            if key != "step":
                self._writer.add_scalar(key, value, row["step"])

    def teardown(self, trainer: L.Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        if self._writer:
            self._writer.close()


def _rows_until(path: Path, task: Task) -> list[dict[str, Any]]:
    """The rows of a run up to its state, behind which its steps are repeated; a torn line is none."""
    kept = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        row = json_text.logged(line)
        if row is None or not isinstance(row.get("step"), int):
            continue
        before = row["step"] < task.global_step
        here = row["step"] == task.global_step and not (task.owes_validation and "valid_loss" in row)
        if before or here:
            kept.append(row)
    return kept


class Show(Callback):
    """A bar of the run and of each validation on a terminal; else, or under NO_COLOR, plain lines."""

    def __init__(self, metrics: Metrics):
        self.metrics, self._shown = metrics, 0
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal and "NO_COLOR" not in os.environ
        self._bar: Progress | None = None
        self._validating: TaskID | None = None

    def on_train_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        if trainer.is_global_zero and self.live:
            self._bar = Progress(
                BarColumn(bar_width=10),  # with what follows it fits into 80 columns
                TaskProgressColumn(),
                TextColumn("{task.description}"),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._id = self._bar.add_task("", total=1.0)

    def on_train_batch_end(
        self, trainer: L.Trainer, task: Task, outputs: Any, batch: Any, index: int
    ) -> None:  # type: ignore[override]
        if self._bar:
            self._bar.update(
                self._id,
                completed=task.elapsed.fraction,
                description=self._line(task, float(outputs["task_loss"]), rate=False),
            )
        self._new_rows(trainer, task)

    def on_validation_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        if self._bar:
            batches = sum(n for n in trainer.num_val_batches if n != float("inf"))
            self._validating = self._bar.add_task("validating", total=batches or None)
            self._bar.update(self._id, visible=False)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        task: Task,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # type: ignore[override]
        if self._bar and self._validating is not None:
            self._bar.advance(self._validating)

    def on_validation_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        if self._bar and self._validating is not None:
            self._bar.remove_task(self._validating)
            self._bar.update(self._id, visible=True)
            self._validating = None
        self._new_rows(trainer, task)

    def _new_rows(self, trainer: L.Trainer, task: Task) -> None:
        rows, self._shown = self.metrics.rows[self._shown :], len(self.metrics.rows)
        for row in rows if trainer.is_global_zero else ():
            if "valid_loss" in row:
                name = next(key for key in row if key.startswith("valid_") and key != "valid_loss")
                line = f"step {row['step']}  {name} {row[name]:.4f}  valid_loss {row['valid_loss']:.4f}"
            elif self._bar:
                continue
            else:
                line = self._line(task, row["loss"])
            (self._bar.console.print if self._bar else self.console.print)(
                line, highlight=False, soft_wrap=True
            )

    def _line(self, task: Task, loss: float | None, rate: bool = True) -> str:
        fraction = task.elapsed.fraction
        left = task.elapsed.seconds * (1 - fraction) / fraction if fraction else 0.0
        row = next((r for r in reversed(self.metrics.rows) if "padding" in r), None)
        speed = f"  {pace(3600 * row['audio_hours_per_second'])}  padding {row['padding']:.0%}" if row else ""
        shown = f"  lr {task.trainer.optimizers[0].param_groups[0]['lr']:.1e}" if rate else ""
        left_out = f"  {n} steps left out" if (n := task.not_finite.in_all) else ""
        said = "not finite" if loss is None or not math.isfinite(loss) else f"{loss:.3f}"
        return f"step {task.global_step}  loss {said}{left_out}{shown}{speed}  {_clock(left)} left"

    def teardown(self, trainer: L.Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        if self._bar:
            self._bar.stop()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
