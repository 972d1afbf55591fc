"""Batches of one optimiser step, weighed by how much each has to say.

The trainer takes the mean over batches; what is wanted is the mean over targets. Batch i of n_i targets comes
in with the weight n_i / n_1, and when all are in, the gradients get the factor that makes one batch of them.
"""

from collections.abc import Iterable

from torch import nn


class Accumulated:
    """How many targets the batches since the last optimiser step had."""

    def __init__(self) -> None:
        self._targets: list[float] = []

    def add(self, targets: float) -> float:
        """How much this batch counts beside the first."""
        self._targets.append(targets)
        return targets / max(self._targets[0], 1.0) if len(self._targets) > 1 else 1.0

    def even_out(self, parameters: Iterable[nn.Parameter]) -> None:
        """Their gradients become those of one batch, and the next step begins."""
        counts, self._targets = self._targets, []
        if len(counts) == 1:
            return
        factor = len(counts) * max(counts[0], 1.0) / max(sum(counts), 1.0)
        for p in parameters:
            if p.grad is not None:
                p.grad.mul_(factor)
