"""What happens around the steps: when to stop, what to save, what to show."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from ..audio.atomic import atomic_path, write_text
from ..config import dump
from ..core import save
from ..errors import Interrupted
from .base import Scores, Task

LAST = "last.ckpt"


class Stop(Callback):
    """Ends the run at its steps or minutes, or at a signal: first one saves and stops, a second one aborts.

    The state is written every so many steps or seconds, whole or not at all, and only between optimiser steps.
    """

    def __init__(self, out: Path):
        self.path = out / LAST
        self._signals = 0
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        if task.fraction() >= 1:
            trainer.should_stop = True
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._asked)

    def _asked(self, number: int, frame: Any) -> None:
        self._signals += 1
        if self._signals > 1:
            raise KeyboardInterrupt
        print("stopping after this step, saving the state; again to abort", file=sys.stderr, flush=True)

    def on_train_batch_end(self, trainer: L.Trainer, task: Task, outputs: Any, batch: Any, index: int) -> None:  # type: ignore[override]
        if task.batches_seen % trainer.accumulate_grad_batches:
            return
        stop = trainer.strategy.reduce_boolean_decision(bool(self._signals), all=False)
        if stop or self._due(trainer, task):
            self._save(trainer)
        if stop:
            raise Interrupted
        if task.fraction() >= 1:
            trainer.should_stop = True

    def _due(self, trainer: L.Trainer, task: Task) -> bool:
        every = task.recipe.trainer
        steps = every.save_every_steps is not None and task.global_step % every.save_every_steps == 0
        seconds = every.save_every_seconds is not None and time.monotonic() - self._saved_at >= every.save_every_seconds
        return trainer.strategy.reduce_boolean_decision(steps or seconds, all=False) and task.global_step != self._saved_step

    def _save(self, trainer: L.Trainer) -> None:
        # Every process takes part, only the first writes; a file of this name is always whole.
        half = self.path.with_name(f"{LAST}.tmp")
        trainer.save_checkpoint(half)
        if trainer.is_global_zero:
            os.replace(half, self.path)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def on_train_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        self._save(trainer)

    def teardown(self, trainer: L.Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()


class SaveAdapter(Callback):
    """Writes each trained adapter to `out/<name>` at the best validation, or at the end when there is none."""

    def __init__(self, out: Path):
        self.out = out
        self.best: Scores | None = None
        self.folders: list[Path] = []

    def state_dict(self) -> dict[str, Any]:
        return {"best": vars(self.best) if self.best else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = Scores(**state_dict["best"]) if state_dict["best"] else None

    def on_validation_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        new = task.scores
        if trainer.sanity_checking or new is None:
            return
        # Equal word error rates are common on small sets: the lower loss decides.
        if self.best is None or (new.value, new.loss) <= (self.best.value, self.best.loss):
            self.best = new
            self.write(trainer, task)

    def on_train_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        if self.best is None:
            self.write(trainer, task)

    def write(self, trainer: L.Trainer, task: Task) -> None:
        self.folders = [self.out / name for name in task.recipe.train]
        if not trainer.is_global_zero:
            return
        for name, folder in zip(task.recipe.train, self.folders, strict=True):
            save.write(
                folder,
                task.model,
                name,
                task.backbone.card(),
                heads=dict(task.heads),
                head_config=task.head_config(),
                recipe=dump(task.recipe),
                readme=_card(task, name, self.best),
            )


def _card(task: Task, name: str, scores: Scores | None) -> str:
    """The model card: what it is, what it learned from, how well, how to run it."""
    recipe, card = task.recipe, task.backbone.card()
    measured = f"{scores.name} {scores.value:.4f} on {recipe.data.valid}" if scores else "not validated"
    size = sum(p.numel() for p in task.model.parameters_of(name))
    return (
        f"# {name}\n\nA `{task.model.methods[name].name}` adapter ({size:,} parameters) for {card}, "
        f"trained for {task.global_step} steps on `{recipe.data.train}`.\n\nMeasured: {measured}.\n\n"
        f"```\npython -m speech_peft.transcribe IN -o OUT --adapter {name}\n```\n\n"
        "`recipe.yaml` is the recipe that made it, every default written out.\n"
    )


class Metrics(Callback):
    """metrics.jsonl: a row every few steps and one per validation; TensorBoard too when asked."""

    def __init__(self, out: Path, tensorboard: bool):
        self.path, self.out, self.tensorboard = out / "metrics.jsonl", out, tensorboard
        self._writer: Any = None
        self.rows: list[dict[str, Any]] = []
        """Of this process's part of the run."""
        self._audio = self._padded = self._loss = 0.0
        self._count, self._since = 0, time.monotonic()
        self.bad: list[Any] = []

    def on_train_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        self._since = time.monotonic()
        if not trainer.is_global_zero:
            return
        # A resumed run repeats the steps behind its checkpoint: their rows go.
        kept = [line for line in _lines(self.path) if json.loads(line)["step"] <= task.global_step]
        write_text(self.path, "".join(kept if task.global_step else []))
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.out / "tensorboard", purge_step=task.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, task: Task, outputs: Any, batch: Any, index: int) -> None:  # type: ignore[override]
        seconds = batch.lengths.sum().item() / task.backbone.sample_rate
        self._audio += seconds
        self._padded += len(batch.lengths) * batch.audio.shape[1] / task.backbone.sample_rate
        self._loss += float(outputs["task_loss"])
        self._count += 1
        if task.batches_seen % (task.recipe.trainer.log_every_steps * trainer.accumulate_grad_batches) == 0:
            passed = time.monotonic() - self._since
            self._write(
                {
                    "step": task.global_step,
                    "loss": round(self._loss / self._count, 6),
                    "lr": trainer.optimizers[0].param_groups[0]["lr"],
                    "seconds": round(task.seconds, 3),
                    "fraction": round(task.fraction(), 5),
                    "audio_hours_per_second": round(self._audio * trainer.world_size / 3600 / passed, 6),
                    "padding": round(1 - self._audio / max(self._padded, 1e-9), 4),
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
                    "seconds": round(task.seconds, 3),
                }
            )
        self._since = time.monotonic()

    def _write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if int(os.environ.get("LOCAL_RANK", "0")) or int(os.environ.get("NODE_RANK", "0")):
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for key, value in row.items() if self._writer else ():
            if key != "step":
                self._writer.add_scalar(key, value, row["step"])

    def teardown(self, trainer: L.Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        if self._writer:
            self._writer.close()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


class Show(Callback):
    """A bar on a terminal, one plain line per logged step elsewhere or under NO_COLOR."""

    def __init__(self, metrics: Metrics):
        self.metrics, self._shown = metrics, 0
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal and "NO_COLOR" not in os.environ
        self._bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        if trainer.is_global_zero and self.live:
            self._bar = Progress(
                TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"),
                console=self.console, transient=True,
            )
            self._bar.start()
            self._id = self._bar.add_task("", total=1.0)

    def on_train_batch_end(self, trainer: L.Trainer, task: Task, outputs: Any, batch: Any, index: int) -> None:  # type: ignore[override]
        if self._bar:
            self._bar.update(self._id, completed=task.fraction(), description=self._line(task, float(outputs["task_loss"])))
        self._new_rows(trainer, task)

    def on_validation_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
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
            (self._bar.console.print if self._bar else self.console.print)(line, highlight=False, soft_wrap=True)

    def _line(self, task: Task, loss: float) -> str:
        fraction = task.fraction()
        left = task.seconds * (1 - fraction) / fraction if fraction else 0.0
        row = next((r for r in reversed(self.metrics.rows) if "padding" in r), None)
        speed = f"  {row['audio_hours_per_second']:.4f} h audio/s  padding {row['padding']:.0%}" if row else ""
        rate = task.trainer.optimizers[0].param_groups[0]["lr"]
        return f"step {task.global_step}  loss {loss:.3f}  lr {rate:.1e}{speed}  {_clock(left)} left"

    def teardown(self, trainer: L.Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        if self._bar:
            self._bar.stop()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def load_state(path: Path) -> dict[str, Any]:
    """A checkpoint; only tensors and plain values are ever read from it."""
    return torch.load(path, map_location="cpu", weights_only=True)
