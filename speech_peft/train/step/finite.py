"""Steps whose loss or gradient is not finite: each is left out, and a row of them ends the run."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from ...errors import SpeechPeftError

PATIENCE = 10
"""Steps one after another. One such batch happens; ten are the recipe's fault."""


class NotFinite:
    """Counts them."""

    def __init__(self) -> None:
        self.in_a_row = self.in_all = 0
        self._loss = False

    def heard(self, loss: Tensor) -> None:
        """Takes note of the loss of one batch of the step."""
        self._loss = self._loss or not bool(torch.isfinite(loss.detach()).all())

    def settle(self, trainer: L.Trainer, trained: Sequence[nn.Parameter]) -> None:
        """Leaves the step that ends here out where it is one, in every process; raises SpeechPeftError after
        `PATIENCE` such steps in a row.
        """
        scaled = trainer.precision == "16-mixed"
        met = self._met(trained, scaled)
        if trainer.world_size > 1:  # what they share would part
            met = trainer.strategy.reduce_boolean_decision(met, all=False)
        self._leave_out(met, trained, scaled, trainer.global_step)

    def _met(self, trained: Sequence[nn.Parameter], scaled: bool) -> bool:
        """Whether the step that ends here is one; with a loss scale, gradients overflow by design."""
        loss, self._loss = self._loss, False
        if loss or scaled:
            return loss
        gradients = [p.grad for p in trained if p.grad is not None]
        return not bool(torch.isfinite(nn.utils.get_total_norm(gradients)))

    def _leave_out(self, left_out: bool, trained: Sequence[nn.Parameter], scaled: bool, step: int) -> None:
        """Takes the gradients away, so that nothing changes; a loss scale sees to that itself."""
        if not left_out:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        self.in_all += 1
        for p in trained if not scaled else ():
            p.grad = None
        if self.in_a_row >= PATIENCE:
            raise SpeechPeftError(
                f"the loss or its gradient was not finite in {PATIENCE} steps in a row, up to step {step}; "
                "none of them changed the adapter. Try a smaller optim.lr, optim.clip_norm=1, "
                "optim.warmup=100, trainer.precision=32-true, or look for silent clips: speech-peft data"
            )
