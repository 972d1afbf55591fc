"""Several changes of one weight as one change of low rank.

    cat             sum_n f_n D_n, exactly: ranks add up            D_n = s_n B_n A_n
    sum, average    the same (f_n, or f_n / sum f), the nearest of a lower rank
    ties            trimmed to the largest entries, one sign elected for each entry, the mean of those that
                    have it (Yadav et al. 2023, arXiv:2306.01708)
    dare            entries dropped at random, the rest made larger, summed (Yu et al. 2023, arXiv:2311.03099)

A and B of several LoRAs are never averaged by themselves: their product would not be the mean of the
products, as any invertible matrix may stand between them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.low_rank import LowRank, nearest


def concatenated(changes: Sequence[LowRank], factors: Sequence[float]) -> LowRank:
    """Their sum, each by its factor: exact, and of as high a rank as all of theirs."""
    a = torch.cat([change.a for change in changes])
    scaled = [f * change.scale * change.b for f, change in zip(factors, changes, strict=True)]
    return LowRank(a, torch.cat(scaled, 1), float(len(a)), _bias(changes, factors), _dropout(changes))


def compressed(change: LowRank, rank: int) -> tuple[LowRank, float]:
    """The nearest of this rank, and |what is missing| / |change|; found among its own columns and rows."""
    if change.rank <= rank:
        return change.padded(rank), 0.0
    columns, b = torch.linalg.qr(change.scale * change.b)
    rows, a = torch.linalg.qr(change.a.mT)
    small, error = nearest(b @ a.mT, rank)
    bias = None if change.bias is None else change.scale * change.bias
    near = LowRank(small.a @ rows.mT, columns @ small.b, small.alpha, bias, change.dropout)
    return near.padded(rank), error


def elected(
    changes: Sequence[LowRank], factors: Sequence[float], rank: int, density: float
) -> tuple[LowRank, float]:
    """TIES: of each change the share `density` of its largest entries, and of these what agrees in sign."""
    kept = torch.stack([_largest(_dense(change), density) for change in changes])
    weights = torch.tensor(factors, dtype=kept.dtype)[:, None, None]
    sign = (weights * kept).sum(0).sign()
    agrees = (kept.sign() == sign) & (kept != 0)
    total = (weights * agrees).sum(0)
    mean = (weights * kept * agrees).sum(0) / total.where(total != 0, torch.ones_like(total))
    return _low(mean, rank, changes, [f / sum(factors) for f in factors])


def thinned(
    changes: Sequence[LowRank],
    factors: Sequence[float],
    rank: int,
    density: float,
    random: torch.Generator,
) -> tuple[LowRank, float]:
    """DARE: of each change the share `density` of its entries, chosen at random, larger by 1 / density."""
    total = torch.zeros_like(_dense(changes[0]))
    for factor, change in zip(factors, changes, strict=True):
        dense = _dense(change)
        kept = torch.rand(dense.shape, generator=random, dtype=dense.dtype) < density
        total += factor / density * dense * kept
    return _low(total, rank, changes, factors)


def _largest(dense: Float[Tensor, "o i"], density: float) -> Float[Tensor, "o i"]:
    keep = max(1, round(density * dense.numel()))
    least = dense.abs().flatten().kthvalue(dense.numel() - keep + 1).values
    return dense.where(dense.abs() >= least, torch.zeros_like(dense))


def _dense(change: LowRank) -> Float[Tensor, "o i"]:
    return change.scale * change.b @ change.a


def _low(
    dense: Tensor, rank: int, changes: Sequence[LowRank], factors: Sequence[float]
) -> tuple[LowRank, float]:
    found, error = nearest(dense, rank)
    bias = _bias(changes, factors)
    return LowRank(found.a, found.b, found.alpha, bias, _dropout(changes)).padded(rank), error


def _bias(changes: Sequence[LowRank], factors: Sequence[float]) -> Tensor | None:
    """Of a change whose scale is 1."""
    shifts = [
        factor * change.scale * change.bias
        for factor, change in zip(factors, changes, strict=True)
        if change.bias is not None
    ]
    return torch.stack(shifts).sum(0) if shifts else None


def _dropout(changes: Sequence[LowRank]) -> float:
    return max(change.dropout for change in changes)
