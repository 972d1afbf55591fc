"""Hydra: low-rank branches beside a frozen linear layer and behind it (Kim et al. 2023, arXiv:2309.06922).

    y' = y + s (B_p (A_p x + a_p) + b_p) + s (B_q (A_q y + a_q) + b_q),      y = W x + b

    parallel, with index p:      new directions, read from x
    sequential, with index q:    what the layer found, mixed anew

The sequential branch reads y with its bias, and without the parallel branch's part in it. So both are sums,
and the layer merges exactly into

    W' = W + s B_p A_p + s (B_q A_q) W
    b' = b + s (B_p a_p + b_p) + s (B_q (A_q b + a_q) + b_q)

which is one LoRA of rank r_p + r_q with B = [B_p, B_q], A = [A_p; A_q W] and a bias. With r_q = 0 it is LoRA,
with r_p = 0 a linear series adapter.

Sites and biases follow the authors' code for images (ViT): the output of attention and the second layer of
the feed-forward sublayer, r_p = r_q = 2. A begins as Xavier's uniform numbers, everything else as zero. Their
code for text has no biases (`bias: false`). A layer costs r_p (d_in + d_out) + 2 r_q d_out numbers, and with
biases r_p + r_q + 2 d_out more; merged it costs nothing.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator
from torch import Tensor, nn

from ..core.adapter import Adapter
from ..core.context import Context
from ..core.low_rank import LowRank
from ..core.method import Method
from ..core.site import Kind, Site
from ..registry import METHODS


@METHODS.register("hydra")
class Hydra(Method):
    """Parallel and sequential low-rank branches in one layer; merges exactly."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear"})

    sites: tuple[str, ...] = ("*.attn.o", "*.ffn*.down")
    rank: NonNegativeInt = 2
    """r_p of the parallel branch; 0 leaves it out."""
    sequential_rank: NonNegativeInt | None = None
    """r_q of the sequential branch; 0 leaves it out, and by default it is the parallel one's."""
    scale: PositiveFloat = 1.0
    """s of both branches; the paper's lies between 0.1 and 4.5, by task."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Between A and B."""
    bias: bool = True
    """Whether the branches have the biases a and b."""

    @model_validator(mode="after")
    def _has_a_branch(self) -> "Hydra":
        if self.rank == 0 and not self.sequential_rank:
            raise ValueError("hydra: rank and sequential_rank are both 0, so nothing would train")
        return self

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return _Hydra(site.dim_in, site.dim_out, self)

    @classmethod
    def examples(cls) -> list[Method]:
        return [
            cls(),
            cls(rank=0, sequential_rank=3, bias=False, scale=0.5, sites=("*.attn.[kv]",)),
            cls(rank=3, sequential_rank=1, dropout=0.1, sites=("*.ffn*.up",)),
        ]


class _Branch(nn.Module):
    """h -> B (A h + a) + b."""

    def __init__(self, dim_in: int, dim_out: int, rank: int, bias: bool, dropout: float):
        super().__init__()
        self.a = nn.Parameter(nn.init.xavier_uniform_(torch.empty(rank, dim_in)))
        self.b = nn.Parameter(torch.zeros(dim_out, rank))
        self.a_bias = nn.Parameter(torch.zeros(rank)) if bias else None
        self.b_bias = nn.Parameter(torch.zeros(dim_out)) if bias else None
        self.dropout = dropout

    def forward(self, h: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        h = F.linear(h, self.a, self.a_bias)
        return F.linear(F.dropout(h, self.dropout, self.training), self.b, self.b_bias)


class _Hydra(Adapter):
    def __init__(self, dim_in: int, dim_out: int, settings: Hydra):
        super().__init__()
        own = settings.bias, settings.dropout
        ranks = settings.rank, settings.rank if settings.sequential_rank is None else settings.sequential_rank
        self.parallel = _Branch(dim_in, dim_out, ranks[0], *own) if ranks[0] else None
        self.sequential = _Branch(dim_out, dim_out, ranks[1], *own) if ranks[1] else None
        self.scale = settings.scale

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        changed = y
        if self.parallel is not None:
            changed = changed + self.scale * self.parallel(x)
        if self.sequential is not None:  # of y, not of what the parallel branch made of it
            changed = changed + self.scale * self.sequential(y)
        return changed

    def to_lora(self, weight: Tensor, bias: Tensor | None) -> LowRank:
        a, b, shifts = [], [], []
        if (branch := self.parallel) is not None:
            a.append(branch.a)
            b.append(branch.b)
            shifts.append(_shift(branch, branch.a_bias))
        if (branch := self.sequential) is not None:
            a.append(branch.a @ weight)
            b.append(branch.b)
            through = None if bias is None else branch.a @ bias
            shifts.append(_shift(branch, _sum(branch.a_bias, through)))
        rows, shift = torch.cat(a), _sum(*shifts)
        return LowRank(rows, torch.cat(b, 1), self.scale * len(rows), shift)


def _shift(branch: _Branch, inner: Tensor | None) -> Tensor | None:
    """What a branch makes of a constant at its inner width: the part of it that depends on no input."""
    return _sum(None if inner is None else branch.b @ inner, branch.b_bias)


def _sum(*terms: Tensor | None) -> Tensor | None:
    there = [term for term in terms if term is not None]
    return torch.stack(there).sum(0) if there else None
