"""What happens around the steps: when to stop, and what to save."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from ..core.method import Mixing
from ..core.passage.mixing import in_order, with_over
from ..core.saved import hub, save
from ..core.saved.swap import check_replaceable
from ..errors import Interrupted, SpeechPeftError
from ..recipe.config import dump
from ..terminal.door import complain
from .state import LAST
from .tasks.base import Task
from .tasks.scores import Scores


class Stop(Callback):
    """Ends the run at its steps or minutes, or at a signal: first one saves and stops, a second one aborts.

    The state is written every so many steps or seconds, whole or not at all, only between optimiser
    steps.
    """

    def __init__(self, out: Path):
        self.path = out / LAST
        self._signals = 0
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: L.Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        # Before Lightning installs its own, which it takes away before `teardown`: put back later, they would
        # hold the trainer and its model for as long as the process lives.
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_start(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        if task.elapsed.fraction >= 1:
            trainer.should_stop = True
        for number in self._handlers:
            signal.signal(number, self._asked)

    def _asked(self, number: int, frame: Any) -> None:
        self._signals += 1
        if self._signals > 1:
            raise KeyboardInterrupt
        complain("stopping after this step, saving the state; again to abort")

    def on_train_batch_end(
        self, trainer: L.Trainer, task: Task, outputs: Any, batch: Any, index: int
    ) -> None:  # type: ignore[override]
        if task.batches_seen % trainer.accumulate_grad_batches:
            return
        stop = trainer.strategy.reduce_boolean_decision(bool(self._signals), all=False)
        if stop or self._due(trainer, task):
            self._save(trainer, task)
        if stop:
            raise Interrupted
        if task.elapsed.fraction >= 1:
            trainer.should_stop = True

    @property
    def asked(self) -> bool:
        """Whether a signal has come, perhaps too late for another step."""
        return self._signals > 0

    def _due(self, trainer: L.Trainer, task: Task) -> bool:
        every = task.recipe.trainer
        steps = every.save_every_steps is not None and task.global_step % every.save_every_steps == 0
        seconds = (
            every.save_every_seconds is not None
            and time.monotonic() - self._saved_at >= every.save_every_seconds
        )
        return (
            trainer.strategy.reduce_boolean_decision(steps or seconds, all=False)
            and task.global_step != self._saved_step
        )

    def _save(self, trainer: L.Trainer, task: Task) -> None:
        # Every process takes part, only the first writes; a file of this name is always whole.
        task.procedures.before_save(trainer.optimizers[0])
        trainer.save_checkpoint(self.path)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def on_train_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        self._save(trainer, task)

    def teardown(self, trainer: L.Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()


class SaveAdapter(Callback):
    """Writes each trained adapter to `out/<name>` at the best validation, or at the end without one.

    Raises SpeechPeftError at the end of a run whose best adapters are neither there nor to be made again.
    """

    def __init__(self, out: Path):
        self.out = out
        self.best: Scores | None = None
        self.best_step: int | None = None
        self.folders: list[Path] = []

    def state_dict(self) -> dict[str, Any]:
        return {"best": vars(self.best) if self.best else None, "step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = Scores(**state_dict["best"]) if state_dict["best"] else None
        self.best_step = state_dict.get("step")

    def setup(self, trainer: L.Trainer, task: Task, stage: str) -> None:  # type: ignore[override]
        self.folders = [self.out / name for name in saved_names(task)]
        for folder in self.folders:
            check_replaceable(folder)

    def on_validation_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        new = task.scores
        if trainer.sanity_checking or new is None:
            return
        if new.better_than(self.best):
            self.best, self.best_step = new, task.global_step
            self.write(trainer, task)

    def on_train_end(self, trainer: L.Trainer, task: Task) -> None:  # type: ignore[override]
        gone = [folder for folder in self.folders if not (folder / "adapter.json").is_file()]
        # The first process writes, so it knows; another machine may have another disk.
        missing = trainer.strategy.broadcast(bool(gone))
        if self.best is None or (missing and self.best_step == task.global_step):
            self.write(trainer, task)
        elif missing:
            raise SpeechPeftError(
                f"{', '.join(map(str, gone or self.folders))}: gone, and it was the best at step "
                f"{self.best_step}; the state is of step {task.global_step}, from which it cannot be made "
                "again. Give --resume never to train it anew"
            )

    def write(self, trainer: L.Trainer, task: Task) -> None:
        task.settle()  # every process, though only the first writes
        if not trainer.is_global_zero:
            return
        folders = dict(zip(saved_names(task), self.folders, strict=True))
        # A mixer names what it is over by the files of these, which are then there.
        for name in (name for name in in_order(task.model.methods) if name in folders):
            folder = folders[name]
            save.write(
                folder,
                task.model,
                name,
                task.backbone.card(),
                heads=task.kept_heads,
                head_config=task.head_config(),
                base=task.base_parameters,
                together=_together(task, name),
                experts=_experts(task, name, folders),
                recipe=dump(task.recipe),
                readme=_card(task, name, self.best),
            )


def _experts(task: Task, name: str, written: Mapping[str, Path]) -> dict[str, str]:
    """The digest of each adapter that a mixer is over."""
    method = task.model.methods[name]
    over = method.over if isinstance(method, Mixing) else ()
    where = {
        one: written[one] if one in written else hub.locate(task.recipe.adapters[one]["from"]) for one in over
    }
    return {one: save.read(folder).digest for one, folder in where.items()}


def _together(task: Task, name: str) -> dict[str, str]:
    """Where each adapter is that runs beside this one, for `Manifest.together`; nothing where it is alone."""
    running = with_over(task.recipe.active, task.model.methods)
    if len(running) < 2:
        return {}
    found = {}
    for other in running:
        if other in saved_names(task):
            found[other] = "." if other == name else f"../{other}"
        elif Path(source := task.recipe.adapters[other]["from"]).is_dir():
            found[other] = f"./{os.path.relpath(source, Path(task.recipe.out) / name)}"
        else:
            found[other] = source
    return found


def saved_names(task: Task) -> list[str]:
    """What the task writes, and fresh adapters that ran beside it untrained, which nobody would have else."""
    recipe = task.recipe
    fresh = [name for name in recipe.active if "from" not in recipe.adapters[name]]
    return list(dict.fromkeys([*task.written, *fresh]))


def _card(task: Task, name: str, scores: Scores | None) -> str:
    """The model card: what it is, what it learned from, how well, how to run it."""
    recipe, card = task.recipe, task.backbone.card()
    measured = f"{scores.name} {scores.value:.4f} on {recipe.data.valid}" if scores else "not validated"
    size = sum(p.numel() for p in task.model.parameters_of(name))
    base = "" if not task.base_parameters else " The encoder itself was fine-tuned: `base.safetensors`."
    beside = [other for other in recipe.active if other != name]
    others = f" It runs together with {', '.join(beside)}, which `adapter.json` names." if beside else ""
    verb = {"asr": "transcribe"}.get(recipe.task.name, recipe.task.name)
    given = "OUT.wav" if verb == "generate" else "IN -o OUT"
    return (
        f"# {name}\n\nA `{task.model.methods[name].name}` adapter ({size:,} parameters) for {card}, "
        f"trained for {task.global_step} steps on `{recipe.data.train}`.{base}{others}\n\n"
        f"Measured: {measured}.\n\n"
        f"```\nspeech-peft {verb} {given} --adapter {name}\n```\n\n"
        "`recipe.yaml` is the recipe that made it, every default written out.\n"
    )
