"""Numbers of which each of several names has its own: a task's choice, a language's vector."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Named(nn.Module):
    """A row of numbers for each name. The last ones may be `fresh`: learned alone, while all else stays."""

    def __init__(self, start: Float[Tensor, "n ..."], fresh: int = 0):
        super().__init__()
        old = len(start) - fresh
        self.known = nn.Parameter(start[:old].clone())
        self.fresh = nn.Parameter(start[old:].clone()) if fresh else None

    def every(self) -> Float[Tensor, "n ..."]:
        """The rows of all names, in their order."""
        return self.known if self.fresh is None else torch.cat([self.known, self.fresh])


def rows_of(
    every: Float[Tensor, "n ..."], ids: Int[Tensor, " b"], unknown: Float[Tensor, "..."]
) -> Float[Tensor, "b ..."]:
    """The row of each id; `unknown` where an id is -1."""
    found = every.index_select(0, ids.clamp_min(0))
    return torch.where((ids < 0).view(-1, *(1,) * unknown.dim()), unknown, found)
