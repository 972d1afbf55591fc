"""Parameters that differ between processes: kept out of what is exchanged, and clipped by themselves."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import lightning.pytorch as L
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ...errors import ConfigError


def hide_from_ddp(task: nn.Module, own: Sequence[nn.Parameter], whose: Collection[str]) -> None:
    """What DDP neither averages nor sends: parameters that are each process's own, and the frozen base.

    Of the adapters with such parameters (`whose`) also no buffer is sent: they see to that themselves.
    """
    named = dict(task.named_parameters())
    names = {id(p): name for name, p in named.items()}
    adapters = tuple(f"model.adapters.{name}." for name in whose)
    buffers = [name for name, _ in task.named_buffers() if name.startswith(adapters)]
    # All have read the same base, and decoders that are not called hold no memory.
    base = [name for name, p in named.items() if name.startswith("model.base.") and not p.requires_grad]
    hidden = [names[id(p)] for p in own] + buffers + base
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(task, hidden)


def clip_apart(optimizer: Optimizer, apart: Sequence[Sequence[nn.Parameter]], limit: float) -> None:
    """One norm for what all processes share, and one for each group that they do not.

    A norm over both would differ between processes, and so would what they share after the step.
    """
    own = {id(p) for group in apart for p in group}
    every = [p for group in optimizer.param_groups for p in group["params"]]
    for group in ([p for p in every if id(p) not in own], *apart):
        nn.utils.clip_grad_norm_(group, limit)


def check_precision(trainer: L.Trainer) -> None:
    """Raise ConfigError where processes that have parameters of their own might not step together."""
    if trainer.world_size > 1 and trainer.precision == "16-mixed":
        raise ConfigError(
            "trainer.precision: in 16-mixed a process whose gradients overflow leaves a step out, and "
            "each has some of its own here: what they share would part. Use bf16-mixed or 32-true"
        )
