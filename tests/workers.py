"""A small training loop for methods with workers, in this process or in two that talk over gloo."""

import multiprocessing
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.workers import Workers, place
from tests import toy

CLIPS = 4
"""In a batch, over all processes."""


class Loop:
    """What a task does with a method that has workers, on the toy encoder; its batches are numbered."""

    def __init__(
        self,
        method: Method,
        make: Callable[[list[nn.Parameter]], Optimizer] = lambda p: AdamW(p, lr=1e-2),
        base: nn.Module | None = None,
    ):
        torch.manual_seed(0)
        self.model = AdaptedModel(base or toy.toy(), toy.sites(), {"a": method}).train()
        life = method.lifecycle(self.model, "a")
        assert isinstance(life, Workers)
        self.life = life
        self.optimizer = make(self.model.trainable("a"))
        self.step = 0

    @property
    def parts(self) -> list[Any]:
        return list(self.life.parts.values())

    def begin(self) -> "Loop":
        self.life.on_fit_start(None, ())  # type: ignore[arg-type]
        return self

    def backward(self, x: Tensor | None = None) -> None:
        """The gradients of one batch, of which each process hears its share."""
        rank, world = place()
        x = toy.speech(CLIPS, seed=self.step) if x is None else x
        wanted = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x).flip(-1)
        heard = self.model(x.tensor_split(world)[rank])
        (heard - wanted.tensor_split(world)[rank]).square().mean().backward()
        self.life.after_backward()

    def run(self, steps: int) -> "Loop":
        for _ in range(steps):
            self.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.life.after_step(self.step)
            self.step += 1
        return self


def in_two(work: Callable[[], dict[str, Tensor]], folder: Path) -> list[dict[str, Tensor]]:
    """What `work` gives in each of two processes of one gloo group."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_run, args=(work, folder, rank)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0, f"a process ended with {process.exitcode}"
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _run(work: Callable[[], dict[str, Tensor]], folder: Path, rank: int) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=50)
    )
    torch.save(work(), folder / f"{rank}.pt")
    dist.destroy_process_group()
