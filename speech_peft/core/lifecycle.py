"""What a method does around the training loop, when it is a procedure and not only a layer.

The task drives these hooks (`tasks/base.py`); a method that needs none of them never hears of it. Schedules
and step counts belong here, not in modules.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor


class Lifecycle:
    """Every hook is optional and does nothing by default."""

    def on_fit_start(self, loss_fn: Callable[[Any], Tensor], batches: Iterable[Any]) -> None:
        """Before step 0: score parameters on data, then fix a mask, say."""

    def before_forward(self, step: int) -> None:
        """Before each training forward: draw an expert, set a temperature."""

    def extra_losses(self, step: int, forward: Callable[[], Any]) -> dict[str, Tensor]:
        """Terms added to the task's loss; `forward` runs the batch once more."""
        return {}

    def after_backward(self) -> None:
        """When gradients are there and before they are clipped: mask or exchange them."""

    def after_step(self, step: int) -> None:
        """After the optimiser's step: merge, reset, project."""

    def before_eval(self) -> None:
        """Before validation, saving and inference: bring the weights to their final form."""
