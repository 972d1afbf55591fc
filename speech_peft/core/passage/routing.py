"""Who was chosen, when: the weights of mixers that choose by what they hear, noted while somebody listens."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..context import Context


@dataclass(frozen=True)
class Note:
    """The weights at one site in one forward."""

    weights: Float[Tensor, "b t n"]
    ctx: Context


class Notes:
    """What one mixer notes; nothing, unless it was told to listen. A copy of a model has none."""

    def __init__(self) -> None:
        self._taken: list[Note] | None = None

    def listen(self) -> None:
        """Note every forward from here on."""
        self._taken = []

    def end(self) -> list[Note]:
        """All that was noted; no more from here on."""
        taken, self._taken = self._taken or [], None
        return taken

    def take(self, weights: Float[Tensor, "b t n"], ctx: Context) -> None:
        """Note one forward; a pass that is computed again was noted the first time."""
        if self._taken is not None and not ctx.again:
            self._taken.append(Note(weights, ctx))

    def __deepcopy__(self, memo: Any) -> "Notes":
        return Notes()


def counted(values: Float[Tensor, "b t n"], ctx: Context) -> Bool[Tensor, "b t"] | None:
    """Which frames of a pass are the clip's own; None where nobody said, and all are."""
    said = [mask for mask in (ctx.mask, ctx.sound) if mask is not None and mask.shape == values.shape[:2]]
    return None if not said else torch.stack(said).all(0)


def over_frames(values: Float[Tensor, "b t n"], ctx: Context) -> Float[Tensor, "b n"]:
    """The mean over the frames that are the clip's own."""
    own = counted(values, ctx)
    if own is None:
        return values.mean(1)
    share = own.to(values.dtype)[..., None]
    return (values * share).sum(1) / share.sum(1).clamp_min(1.0)


def entropy(weights: Float[Tensor, "b t n"], ctx: Context) -> Tensor:
    """How undecided a choice is, in nats: 0 where one has all the weight, log n where all have as much."""
    each = -(weights.float() * weights.float().clamp_min(1e-9).log()).sum(-1, keepdim=True)
    return over_frames(each, ctx).mean()
