"""MerA: inner units of adapters brought into one order before they are averaged (He et al. 2023,
arXiv:2308.15982).

The frozen model fixes what enters and leaves an adapter, so its r inner units are all that may stand in
another order. With u_i of unit i, the row of [D, b_D] that it hears by, or its activations on probe frames,

    cost_ij = |u_i of the anchor - u_j of the other|^2,        order = the cheapest assignment

Transport between uniform marginals is cheapest by a permutation, so a linear assignment is exact. The anchor
is the adapter to which all others come cheapest; adapters that began alike are in one order already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.adapter import Adapter, NotMergeable, Units

Vectors = Sequence[Float[Tensor, "r k"]]
"""Of each adapter at one site, what its units are told apart by."""


@dataclass(frozen=True)
class Alignment:
    """In what order the units of each adapter stand for those of the anchor."""

    anchor: int
    orders: Mapping[str, Sequence[Int[Tensor, " r"]]]
    """By site, of each adapter."""
    moved: float
    """The share of units of others than the anchor that change their place."""


def align(sites: Mapping[str, Vectors], anchor: int | None = None) -> Alignment:
    """The orders of all adapters at all sites; without an `anchor` the cheapest one is taken."""
    many = len(next(iter(sites.values())))
    found = {}
    for candidate in range(many) if anchor is None else [anchor]:
        total, orders = 0.0, {}
        for site, vectors in sites.items():
            each = [assignment(vectors[candidate], other) for other in vectors]
            orders[site] = [order for order, _ in each]
            total += sum(cost for _, cost in each)
        found[candidate] = total, orders
    best = min(found, key=lambda candidate: found[candidate][0])
    others = [order for all_ in found[best][1].values() for i, order in enumerate(all_) if i != best]
    moved = sum(int((order != torch.arange(len(order))).sum()) for order in others)
    return Alignment(best, found[best][1], moved / max(1, sum(map(len, others))))


def assignment(anchor: Float[Tensor, "r k"], other: Float[Tensor, "r k"]) -> tuple[Int[Tensor, " r"], float]:
    """Which unit of the other stands for each of the anchor's, and the squared distances in sum.

    >>> own = torch.eye(3)
    >>> assignment(own, own[[2, 0, 1]])
    (tensor([1, 2, 0]), 0.0)
    """
    from scipy.optimize import linear_sum_assignment

    a, b = anchor.double(), other.double()
    cost = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.mT
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.from_numpy(columns), float(cost[rows, columns].sum().clamp_min(0.0))


def by_weights(part: Adapter) -> Float[Tensor, "r k"]:
    """What each unit hears by: its rows of all matrices that lead to it, beside each other."""
    state = part.state_dict()
    return torch.cat(
        [
            state[name].flatten(1) if state[name].dim() > 1 else state[name][:, None]
            for name in units_of(part).rows
        ],
        1,
    )


@torch.no_grad()
def reorder(part: Adapter, order: Int[Tensor, " r"]) -> None:
    """Put the units of an adapter into another order; what it does stays the same."""
    units, state = units_of(part), part.state_dict()
    for name in units.rows:
        state[name].copy_(state[name][order].clone())
    for name in units.columns:
        state[name].copy_(state[name][:, order].clone())


def units_of(part: object) -> Units:
    """The units of an adapter; raises NotMergeable where there are none that could be brought into order."""
    found = part.units() if isinstance(part, Adapter) else None
    if found is None:
        raise NotMergeable(f"{type(part).__name__.strip('_')} has no inner units that stand in some order")
    return found
