"""How many weights of each matrix stay, and which by their scores."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import SpeechPeftError


def highest(scores: Tensor, count: int) -> Tensor:
    """True at the `count` highest; raises SpeechPeftError where scores decide nothing."""
    if not scores.nan_to_num(neginf=0.0).any() or scores.isnan().any() or scores.isposinf().any():
        what = "not finite" if scores.isnan().any() or scores.isposinf().any() else "all zero"
        raise SpeechPeftError(
            f"sparse: {scores.numel()} scores are {what}, so no weight can be chosen. Is the adapter active "
            "and heard by the loss? Else give init_std, or score=random"
        )
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[scores.argsort(descending=True, stable=True)[:count]] = True
    return chosen


def erdos_renyi(shapes: Sequence[tuple[int, ...]], density: float) -> list[int]:
    """How many weights each matrix keeps: together exactly round(density n), none more than it has."""
    sizes, sums = [math.prod(shape) for shape in shapes], [sum(shape) for shape in shapes]
    budget, exact = round(density * sum(sizes)), [math.inf] * len(shapes)
    full: set[int] = set()
    while any(wanted > size for wanted, size in zip(exact, sizes, strict=True)):
        # share_i n_i = epsilon sum(shape_i), for all that are not full
        open_ = [i for i in range(len(shapes)) if i not in full]
        left = budget - sum(sizes[i] for i in full)
        epsilon = left / max(1, sum(sums[i] for i in open_))
        exact = [sizes[i] if i in full else epsilon * sums[i] for i in range(len(shapes))]
        full |= {i for i in open_ if exact[i] > sizes[i]}
    counts = [math.floor(wanted) for wanted in exact]
    by_rest = sorted(range(len(shapes)), key=lambda i: counts[i] - exact[i])
    for i in by_rest[: budget - sum(counts)]:
        counts[i] += 1
    return counts
