"""Attention of several heads over keys that are given: beside a frozen one, with projections of its own."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


def attended(
    query: Float[Tensor, "b q d"],
    key: Float[Tensor, "b k d"],
    value: Float[Tensor, "b k d"],
    open: Bool[Tensor, "b k"] | None,
    size: int,
) -> Float[Tensor, "b q d"]:
    """What heads of this size find among the open keys; nothing, exactly zero, in a row that has none."""
    q, k, v = (x.unflatten(-1, (-1, size)).transpose(1, 2) for x in (query, key, value))
    if open is None:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    some = open.any(1)[:, None]
    found = F.scaled_dot_product_attention(q, k, v, (open | ~some)[:, None, None])
    return found.transpose(1, 2).flatten(2) * some[..., None]


def nearby(
    query: Float[Tensor, "b n t d"],
    key: Float[Tensor, "b n t d"],
    value: Float[Tensor, "b n t d"],
    open: Bool[Tensor, "b n t"] | None,
    size: int,
    window: int,
) -> Float[Tensor, "b n t d"]:
    """The same where a frame of each of n views sees those at most `window` away, in all views."""
    b, n, t, _ = query.shape
    q = query.unflatten(-1, (-1, size))
    k, v = (_around(x, window).unflatten(-2, (-1, size)) for x in (key, value))
    there = torch.ones(b, n, t, dtype=torch.bool, device=query.device) if open is None else open
    # What lies before the first frame and behind the last is padded with False: not there.
    seen = _around(there[..., None], window)[..., 0, :]
    scores = torch.einsum("bnthc,bmthcw->bnthmw", q, k) * size**-0.5
    seen = seen.transpose(1, 2)[:, None, :, None]
    some = seen.any((-1, -2), keepdim=True)
    weights = scores.masked_fill(~(seen | ~some), -torch.inf).flatten(-2).softmax(-1, torch.float32)
    weights = (weights.to(v.dtype).unflatten(-1, (n, -1))) * some
    return torch.einsum("bnthmw,bmthcw->bnthc", weights, v).flatten(-2)


def _around(x: Tensor, window: int) -> Tensor:
    """Of [b, n, t, d] the frames around each: [b, n, t, d, 2 w + 1]."""
    return F.pad(x, (0, 0, window, window)).unfold(2, 2 * window + 1, 1)


class Projection(nn.Module):
    """A frozen projection and a change of it that is learned, zero at first: of a low rank, or of any."""

    def __init__(self, dim_in: int, dim_out: int, rank: int | None):
        super().__init__()
        self.a = (
            None
            if rank is None
            else nn.Parameter(torch.empty(rank, dim_in).uniform_(-(dim_in**-0.5), dim_in**-0.5))
        )
        self.b = nn.Parameter(torch.zeros(dim_out, rank or dim_in))

    def forward(self, x: Float[Tensor, "... i"], frozen: nn.Linear | None = None) -> Float[Tensor, "... o"]:
        """The change alone where there is no frozen one."""
        change = F.linear(x if self.a is None else F.linear(x, self.a), self.b)
        return change if frozen is None else as_frozen(x, frozen) + change


def as_frozen(x: Float[Tensor, "... i"], linear: nn.Linear) -> Float[Tensor, "... o"]:
    """What a frozen layer makes of x, in x's precision, whatever adapters sit there."""
    bias = None if linear.bias is None else linear.bias.to(x.dtype)
    return F.linear(x, linear.weight.to(x.dtype), bias)
