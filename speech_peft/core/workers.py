"""Workers: parts of one adapter that learn apart, each from its own share of every batch.

With K workers and P processes, each process is the home of K / P workers, one range after the other, and
splits its clips among them in their order. One process alone is the home of all: it simulates K machines,
clip for clip.

What a worker learns is its own. DDP neither copies nor averages it, its gradient is as strong as if its
process were the home of no other, and it is clipped by its own norm. A clip is never cut; where a batch has
fewer clips than workers, some get none and a gradient of zero.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import ConfigError
from .adapter import Adapter
from .context import Context
from .lifecycle import Lifecycle
from .model import AdaptedModel
from .site import Site


def place() -> tuple[int, int]:
    """This process's number, and how many there are; one process without a group is 0 of 1."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def hosted(count: int) -> range:
    """Which of `count` workers live in this process; ConfigError where they cannot be spread evenly."""
    rank, world = place()
    if count % world:
        raise ConfigError(
            f"workers: {count} workers cannot be spread evenly over {world} processes. Give a multiple of "
            f"{world}, or another number of processes (trainer.devices, trainer.nodes)"
        )
    each = count // world
    return range(rank * each, (rank + 1) * each)


class WorkersAdapter(Adapter):
    """The adapter of one site whose parameters all belong to one worker or another."""

    def __init__(self, workers: Iterable[nn.Module]):
        super().__init__()
        self.workers = nn.ModuleList(workers)

    def shares(self, ctx: Context, *tensors: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """Each worker that lives here, and its clips of each tensor; all are p*b ... d.

        A clip of which several streams run is one worker's in all of them. `together` undoes it.
        """
        if (dims := min(tensor.dim() for tensor in tensors)) < 3:
            raise ConfigError(
                f"workers: each learns from whole clips, and here comes a tensor of {dims} dimensions, where "
                "3 were expected: batch, time and width. Choose other sites"
            )
        here = hosted(len(self.workers))
        clips = [tensor.unflatten(0, (ctx.streams, -1)).tensor_split(len(here), 1) for tensor in tensors]
        split = [[part.flatten(0, 1) for part in parts] for parts in clips]
        return zip(here, zip(*split, strict=True), strict=True)

    def together(self, ctx: Context, parts: Sequence[Tensor]) -> Tensor:
        """What the workers here made of their `shares`, in the order of the rows."""
        return torch.cat([part.unflatten(0, (ctx.streams, -1)) for part in parts], 1).flatten(0, 1)


class Workers(Lifecycle):
    """What every method with workers does around a step; procedures add to it."""

    def __init__(self, model: AdaptedModel, adapter: str):
        self.parts: dict[Site, WorkersAdapter] = {
            site: cast(WorkersAdapter, model.at(adapter, site)) for site in model.sites[adapter]
        }

    @property
    def count(self) -> int:
        return len(next(iter(self.parts.values())).workers)

    def own(self) -> list[list[nn.Parameter]]:
        """The parameters of each worker, at all sites."""
        every = self.parts.values()
        return [[p for part in every for p in part.workers[n].parameters()] for n in range(self.count)]

    def after_backward(self) -> None:
        """Full strength for who lives here, nothing for who does not."""
        here = hosted(self.count)
        for number, group in enumerate(self.own()):
            for p in group:
                if number not in here:
                    p.grad = None  # zeros, where a batch was empty; moments and decay must not move it
                elif p.grad is not None:
                    # The loss is a mean over the clips of all who live here.
                    p.grad.mul_(len(here))

    @torch.no_grad()
    def gather(self) -> None:
        """Bring every worker's parameters from its home to all processes, bit for bit."""
        world = place()[1]
        if world == 1:
            return
        groups = self.own()
        mine = torch.cat([p.flatten() for n in hosted(len(groups)) for p in groups[n]])
        every = [torch.empty_like(mine) for _ in range(world)]
        dist.all_gather(every, mine)
        parameters = [p for group in groups for p in group]
        for p, value in zip(parameters, torch.cat(every).split([p.numel() for p in parameters]), strict=True):
            p.copy_(value.view_as(p))

    def before_save(self, optimizer: Optimizer) -> None:
        """Each worker's parameters and optimiser state, from its home."""
        world = place()[1]
        if world == 1:
            return
        self.gather()
        groups, here = self.own(), hosted(self.count)
        every: list[Any] = [None] * world
        dist.all_gather_object(every, [[_on_cpu(optimizer.state.get(p)) for p in groups[n]] for n in here])
        for number, group in enumerate(groups):
            if number in here:
                continue
            home, place_there = divmod(number, len(here))
            for p, state in zip(group, every[home][place_there], strict=True):
                if state is not None:
                    optimizer.state[p] = {
                        key: value.to(p.device) if isinstance(value, Tensor) and value.dim() else value
                        for key, value in state.items()
                    }


def _on_cpu(state: dict[str, Any] | None) -> dict[str, Any] | None:
    if state is None:
        return None
    return {key: value.cpu() if isinstance(value, Tensor) else value for key, value in state.items()}


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Let every process have the first one's numbers."""
    if place()[1] > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)
