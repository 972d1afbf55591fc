"""Some of the frames that enter a site: the frozen modules work on these alone, and the others pass by."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """Which frames of each clip are worked on, and how much of their update they take.

    Clips of one batch may have different numbers of them; the places that are over hold frames that are not
    `taken`: they are computed, weigh nothing, and nobody attends to them.
    """

    frames: Int[Tensor, "b k"]
    """In the order of time."""
    weights: Float[Tensor, "b k"]
    """Zero where a frame is not taken."""
    residual: bool
    """Whether the span adds to what enters it, as a block does: a frame that passes by is then as it was, and
    zero where the span gives only what is to be added, as a feed-forward sublayer does."""
    taken: Bool[Tensor, "b k"] | None = None
    """None where all are."""
    others: Int[Tensor, "b r"] | None = None
    """Frames that are not worked on, but attended to inside the span."""
    attended: Bool[Tensor, "b r+k"] | None = None
    """Of the `others` and then of the frames, which may be attended to; None where all may."""

    def take(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b k d"]:
        """What the frozen modules get to see."""
        return x.take_along_dim(self.frames[..., None], 1)

    def take_others(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b r d"]:
        """What their attention sees besides."""
        assert self.others is not None
        return x.take_along_dim(self.others[..., None], 1)

    def put_back(self, x: Float[Tensor, "b t i"], y: Float[Tensor, "b k o"]) -> Float[Tensor, "b t o"]:
        """All frames behind the span, of which it made `y` from those that were taken."""
        weights = self.weights[..., None]
        places = self.frames[..., None].expand(-1, -1, y.shape[-1])
        if self.residual:
            before = self.take(x)
            return x.scatter(1, places, (before + weights * (y - before)).to(x.dtype))
        nothing = torch.zeros(*x.shape[:2], y.shape[-1], dtype=y.dtype, device=y.device)
        return nothing.scatter(1, places, (weights * y).to(y.dtype))
