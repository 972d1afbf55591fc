"""What trains and what is frozen: looked at before the first step, and proved after the last."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...errors import ConfigError

if TYPE_CHECKING:
    from .base import Task


def check_frozen(task: Task) -> str:
    """The table of what trains; raises ConfigError when the base would train unasked, or too much would."""
    thawed = [
        name
        for name, p in task.model.base.named_parameters()
        if p.requires_grad and name not in task.base_parameters
    ]
    if thawed:
        raise ConfigError(
            f"the base would train: {', '.join(thawed[:5])} require(s) grad. Nothing was changed."
        )
    trained = sum(p.numel() for p in task.trained())
    own = [p for p in task.trained() if not any(p is q for q in task.base_parameters.values())]
    every = sum(p.numel() for p in task.model.base.parameters()) + sum(p.numel() for p in own)
    percent = 100 * trained / every
    limit = task.recipe.trainer.max_trainable_pct
    heads = [
        f"  head {name}: {sum(p.numel() for p in head.parameters()):,}" for name, head in task.heads.items()
    ]
    tuned = sum(p.numel() for p in task.base_parameters.values())
    base = [f"  of the base, fine-tuned: {tuned:,}"] if tuned else []
    last = f"  trained in all: {trained:,} = {percent:.2f} %"
    table = "\n".join([task.model.describe(), *heads, *base, last])
    if percent > limit and not tuned:  # full fine-tuning was asked for by name
        raise ConfigError(
            f"trainer.max_trainable_pct: {percent:.1f} % of all parameters would train, {limit:g} % may. "
            f"Choose a smaller adapter or raise the limit.\n{table}"
        )
    return table


def fingerprint(module: nn.Module, tuned: Collection[str] = ()) -> str:
    """sha256 over every parameter and buffer, by name: the frozen base has the same one before and after.

    `tuned` names what is fine-tuned and therefore left out.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name not in tuned:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
