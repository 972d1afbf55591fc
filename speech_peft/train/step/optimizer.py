"""What steps: AdamW over groups of parameters, each of its own multiple of the recipe's learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...recipe.parts import OptimConfig
from .schedule import learning_rate


def adamw(
    optim: OptimConfig,
    adapted: Sequence[nn.Parameter],
    paces: Mapping[nn.Parameter, float],
    heads: Sequence[tuple[list[nn.Parameter], float]],
) -> torch.optim.AdamW:
    """Over the adapters' parameters and groups of the heads', each at a multiple of the rate: by `paces`, and
    by what stands beside a group.
    """
    faster = (optim.head_lr or optim.lr) / optim.lr
    groups = _by_pace(adapted, paces)
    groups += [{"params": part, "times": times * faster} for part, times in heads]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=optim.lr,
        betas=optim.betas,
        weight_decay=optim.weight_decay,
    )


def _by_pace(adapted: Sequence[nn.Parameter], paces: Mapping[nn.Parameter, float]) -> list[dict[str, Any]]:
    """In groups of one rate; what has a pace of its own does not decay."""
    found: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameter in adapted:
        found.setdefault(paces.get(parameter, 1.0), []).append(parameter)
    return [
        {"params": params, "times": pace, **({} if pace == 1.0 else {"weight_decay": 0.0})}
        for pace, params in found.items()
    ]


def set_rate(optimizer: torch.optim.Optimizer, optim: OptimConfig, step: int, fraction: float) -> None:
    """The learning rate of this step, in every group."""
    rate = learning_rate(optim, step, fraction)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["times"]
