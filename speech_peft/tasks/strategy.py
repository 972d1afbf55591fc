"""How processes exchange gradients: as Lightning does, unless they have none in common."""

from lightning.pytorch.strategies import DDPStrategy, Strategy

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
