"""What processes share of a task and what not: how they exchange gradients, and clip them.

Some methods have parameters that differ between processes (`Lifecycle.own`), in groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch.strategies import DDPStrategy, Strategy

if TYPE_CHECKING:
    from .base import Task


class NothingShared(DDPStrategy):
    """Processes whose parameters are all their own: nothing is averaged, and DDP would refuse the model."""

    def configure_ddp(self) -> None:
        """Leave the model as it is."""


def strategy_of(task: Task) -> str | Strategy:
    """What the recipe asks for, fit for what trains."""
    name = task.recipe.trainer.strategy
    apart = {id(p) for group in task.apart for p in group}
    if name == "auto" or not apart or any(id(p) not in apart for p in task.trained()):
        return name
    return NothingShared(start_method="popen" if name == "ddp" else "spawn")
