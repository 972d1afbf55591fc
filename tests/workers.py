"""A small training loop for methods with workers, in this process or in two that talk over gloo.

The two are forks of this one, as to import torch and Lightning anew takes longer than what they are to do.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping
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
    _forked(lambda rank: _run(work, folder, rank))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def launched(work: Callable[[], object], environment: Callable[[int], Mapping[str, str]]) -> None:
    """`work` in two processes that know of each other by what a launcher writes into the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    _forked(lambda rank: _told(work, rank, {**meet, **environment(rank)}))


def torchrun(rank: int) -> dict[str, str]:
    """What torchrun says to two processes of one machine."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **_ELASTIC, "GROUP_RANK": "0"}


def torchrun_nodes(rank: int) -> dict[str, str]:
    """What it says to one process on each of two machines."""
    return {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", **_ELASTIC, "GROUP_RANK": str(rank)}


def slurm_nodes(rank: int) -> dict[str, str]:
    """What SLURM says to one task on each of two machines."""
    said = {"NTASKS": 2, "NTASKS_PER_NODE": 1, "NNODES": 2, "PROCID": rank, "LOCALID": 0, "NODEID": rank}
    said |= {"JOB_ID": 1, "JOB_NAME": "train", "NODELIST": "localhost"}
    return {f"SLURM_{name}": str(value) for name, value in said.items()}


_ELASTIC = {"TORCHELASTIC_RUN_ID": "test"}


def _told(work: Callable[[], object], rank: int, environment: Mapping[str, str]) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    os.environ.update(environment)
    rank_zero_only.rank = rank  # was read when Lightning was imported
    work()
    if dist.is_initialized():
        dist.destroy_process_group()


def _forked(work: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(240)  # a busy machine takes minutes for what takes seconds
            assert process.exitcode == 0, f"a process ended with {process.exitcode}"
    finally:
        for process in processes:
            process.kill()


def _run(work: Callable[[], dict[str, Tensor]], folder: Path, rank: int) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=50)
    )
    torch.save(work(), folder / f"{rank}.pt")
    dist.destroy_process_group()
