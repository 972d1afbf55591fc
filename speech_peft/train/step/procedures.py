"""The procedures of all adapters that train, driven as one.

A method with a procedure (score, then freeze; merge every T steps) brings a `Lifecycle` for its adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import lightning.pytorch as L
from torch import Tensor, nn
from torch.optim import Optimizer

from ...core.lifecycle import Outcome
from ...core.model import AdaptedModel

FIRST_BATCHES = 8
"""Of training, which a procedure is shown before step 0 (for scores, masks)."""


class Procedures:
    """Calls every hook of `Lifecycle` for each adapter that has one, in the order of the recipe."""

    def __init__(self, model: AdaptedModel, adapters: Sequence[str]):
        lives = {name: model.methods[name].lifecycle(model, name) for name in adapters}
        self._lives = {name: life for name, life in lives.items() if life is not None}
        self.own: list[list[nn.Parameter]] = [list(g) for life in self._lives.values() for g in life.own()]
        """Groups of parameters that differ between processes."""
        self.whose = [name for name, life in self._lives.items() if life.own()]
        """The adapters that have such parameters."""

    def on_fit_start(self, loss_fn: Callable[[Any], Tensor], task: L.LightningModule) -> None:
        """Before step 0: each is shown the first batches, read anew."""
        for life in self._lives.values():
            with task.trainer.precision_plugin.train_step_context():  # as the steps that follow
                life.on_fit_start(loss_fn, _first_batches(task))

    def before_forward(self, step: int) -> None:
        for life in self._lives.values():
            life.before_forward(step)

    def total(self, step: int, first: Outcome, again: Callable[[], Outcome]) -> Tensor:
        """The loss of a batch with the terms that procedures add to it."""
        total = first.loss
        for life in self._lives.values():
            total = sum(life.extra_losses(step, first, again).values(), start=total)
        return total

    def numbers(self) -> dict[str, float]:
        """What they say of the last step, by `<adapter>_<name>`."""
        return {f"{a}_{n}": value for a, life in self._lives.items() for n, value in life.numbers().items()}

    def after_backward(self) -> None:
        for life in self._lives.values():
            life.after_backward()

    def after_step(self, step: int) -> None:
        for life in self._lives.values():
            life.after_step(step)

    def before_eval(self) -> None:
        for life in self._lives.values():
            life.before_eval()

    def before_save(self, optimizer: Optimizer) -> None:
        for life in self._lives.values():
            life.before_save(optimizer)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """What a resumed run needs, by adapter."""
        return {name: life.state_dict() for name, life in self._lives.items()}

    def load_state_dict(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, life in self._lives.items():
            life.load_state_dict(states[name])


def _first_batches(task: L.LightningModule) -> Iterator[Any]:
    loader = task.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
    for batch in islice(loader, FIRST_BATCHES):
        yield task.transfer_batch_to_device(batch, task.device, 0)
