"""How far a run is: its seconds, those of earlier parts of it included, and the share of it that is done."""

from __future__ import annotations

import time

import lightning.pytorch as L

from ...recipe.parts import TrainerConfig


class Elapsed:
    """The clock of one run. What of it decides something is the same in every process."""

    def __init__(self) -> None:
        self.fraction = 0.0
        """How far the run is, 0 to 1, as all processes agreed on it last."""
        self._before = 0.0
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """Training time so far, earlier parts of a resumed run included."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)

    def start(self) -> None:
        """Training begins."""
        self._started = time.monotonic()

    def go_on_from(self, seconds: float) -> None:
        """So many were trained before this part of the run."""
        self._before = seconds

    def look(self, trainer: L.Trainer, limits: TrainerConfig) -> None:
        """Sets `fraction`, by steps or by time, whichever is further. Every process must call it."""
        by_steps = trainer.global_step / limits.max_steps if limits.max_steps else 0.0
        by_time = self._shared(trainer) / (60 * limits.max_minutes) if limits.max_minutes else 0.0
        self.fraction = min(1.0, max(by_steps, by_time))

    def _shared(self, trainer: L.Trainer) -> float:
        """The first process's clock, so that every process takes the same step and stops together."""
        return trainer.strategy.broadcast(self.seconds) if trainer.world_size > 1 else self.seconds
