"""What a task says of one batch, and of a whole validation set."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.lifecycle import Predicted


@dataclass(frozen=True)
class Loss:
    """A batch's summed loss, and how many targets (tokens, clips) it is summed over."""

    total: Tensor
    targets: int
    predicted: Predicted | None = None
    """For methods that let two passes agree."""


@dataclass(frozen=True)
class Scores:
    """What validation found; lower is better."""

    name: str
    value: float
    loss: float

    def better_than(self, other: Scores | None) -> bool:
        """Or as good; a run that is resumed may hold the best by another measure, which tells nothing."""
        if other is None or other.name != self.name:
            return True
        # Equal error rates are common on small sets: the lower loss decides.
        return (self.value, self.loss) <= (other.value, other.loss)
