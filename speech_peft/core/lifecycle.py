"""What a method does around the training loop, when it is a procedure and not only a layer.

A training step drives these hooks (`train/step/procedures.py`); a method that needs none of them never hears
of it. Schedules and step counts belong here, not in modules. Where a run has several processes, all of them
call every hook.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Predicted:
    """What a task predicts of one batch, in a form in which two passes can be compared."""

    values: Float[Tensor, "n c"]
    """A row for each clip, token or frame that counts: padding is left out."""
    kind: Literal["class", "labels", "values"]
    """Logits of one class of c, logits of c labels that exclude nothing, or numbers to come close to."""


@dataclass(frozen=True)
class Outcome:
    """What one training forward came to."""

    loss: Tensor
    """The task's, over the targets of all processes."""
    predicted: Predicted | None = None
    """None where a task predicts nothing that two passes could agree on."""


class Lifecycle:
    """Every hook is optional and does nothing by default."""

    def own(self) -> Sequence[Sequence[nn.Parameter]]:
        """Parameters that differ between processes: DDP neither copies nor averages them.

        The gradient of each group is clipped by its own norm.
        """
        return ()

    def on_fit_start(self, loss_fn: Callable[[Any], Tensor], batches: Iterable[Any]) -> None:
        """Before step 0: score parameters on data, then fix a mask, say. Not when a run goes on."""

    def before_forward(self, step: int) -> None:
        """Before each training forward: draw an expert, set a temperature."""

    def extra_losses(self, step: int, first: Outcome, again: Callable[[], Outcome]) -> dict[str, Tensor]:
        """Terms added to the task's loss: `first` is what the batch came to, `again` runs it once more."""
        return {}

    def numbers(self) -> dict[str, float]:
        """What metrics.jsonl says of the last training forward, as `<adapter>_<name>`."""
        return {}

    def after_backward(self) -> None:
        """When gradients are there and before they are clipped: mask or exchange them."""

    def after_step(self, step: int) -> None:
        """After the optimiser's step, `step` being its number from 0: merge, reset, project."""

    def before_eval(self) -> None:
        """Before validation, saving and inference: bring the weights to their final form."""

    def before_save(self, optimizer: Optimizer) -> None:
        """Before one process writes a checkpoint for all: bring what only others hold into it."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs and the adapter's own state does not hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
