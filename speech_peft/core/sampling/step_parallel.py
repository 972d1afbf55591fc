"""ParaStep: several denoising steps at a time, each from a prediction one cycle old (arXiv:2505.14741).

    x_t ... x_{t-p}: rank k walks k steps by its own last prediction, and predicts there
    rank 0 takes the p steps in order, each by the prediction that was made for it, and tells the others

After a warm-up of ordinary steps, p ranks do p steps in the time of one. Of each cycle p - 1 predictions go
to rank 0 and one state comes back, nothing else. Only for steps that are functions of state and prediction
alone (DDIM with eta 0, Euler, the reveal of a masked text): a history would hold other ranks' guesses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ...errors import ConfigError

State = TypeVar("State")
Predict = Callable[[Any, int], Tensor]
"""A state and the number of a step to what the network says there. The costly part."""
Step = Callable[[Any, int, Tensor], Any]
"""A state, the number of a step and a prediction to the next state."""


@runtime_checkable
class Comm(Protocol):
    """How ranks reach each other; a local one is all of them."""

    degree: int

    def ranks(self) -> Sequence[int]:
        """Those that this process plays."""
        ...

    def gather(self, own: dict[int, Tensor], active: int) -> list[Tensor] | None:
        """The predictions of the first `active` ranks in their order, on rank 0; None elsewhere."""
        ...

    def spread(self, state: Tensor | None) -> Tensor:
        """Rank 0's state, on all."""
        ...


@dataclass
class LocalComm:
    """All ranks in one process: what several devices would compute, and one device may as a batch."""

    degree: int
    sends: int = 0
    broadcasts: int = 0

    def ranks(self) -> Sequence[int]:
        return range(self.degree)

    def gather(self, own: dict[int, Tensor], active: int) -> list[Tensor] | None:
        self.sends += active - 1
        return [own[rank] for rank in range(active)]

    def spread(self, state: Tensor | None) -> Tensor:
        assert state is not None
        self.broadcasts += 1
        return state


class TorchDistComm:
    """A rank a process of `torch.distributed`, by gloo or nccl; states and predictions are tensors.

    Raises ConfigError where the process group was not set up.
    """

    def __init__(self, like: Callable[[], tuple[Tensor, Tensor]]):
        """`like` gives a prediction and a state of the shapes that will be sent."""
        import torch.distributed as dist

        if not dist.is_available() or not dist.is_initialized():
            raise ConfigError("TorchDistComm: call torch.distributed.init_process_group first")
        self._dist: Any = dist
        self.degree, self.rank, self.like = dist.get_world_size(), dist.get_rank(), like
        self.sends = self.broadcasts = 0

    def ranks(self) -> Sequence[int]:
        return (self.rank,)

    def gather(self, own: dict[int, Tensor], active: int) -> list[Tensor] | None:
        if self.rank >= active:
            return None
        if self.rank:
            self._dist.send(own[self.rank].contiguous(), dst=0)
            self.sends += 1
            return None
        found = [own[0]]
        for rank in range(1, active):
            there = torch.empty_like(self.like()[0])
            self._dist.recv(there, src=rank)
            found.append(there)
        return found

    def spread(self, state: Tensor | None) -> Tensor:
        there = state.contiguous() if state is not None else torch.empty_like(self.like()[1])
        self._dist.broadcast(there, src=0)
        self.broadcasts += self.rank == 0
        return there


@dataclass
class StepParallelSampler:
    """Takes `steps` steps from a state; with degree 1 exactly as one would by hand.

    `warmup` steps come first, one by one, as early states change most. Nothing of a call stays for the next.

    >>> halved = StepParallelSampler(lambda x, t: -x / 2, lambda x, t, e: x + e, steps=4)
    >>> halved(torch.tensor([16.0]))
    tensor([1.])
    """

    predict: Predict
    step: Step
    steps: int
    degree: int = 1
    warmup: int = 1
    comm: Comm | None = None
    together: Callable[[Sequence[Any], Sequence[int]], list[Tensor]] | None = None
    """Predicts for several states at once, where one process plays several ranks."""
    rounds: int = field(default=0, init=False)
    """Predictions one behind the other, of the last call."""

    def __post_init__(self) -> None:
        comm = self.comm
        if self.steps < 1 or self.degree < 1 or self.warmup < 0:
            raise ConfigError(
                f"StepParallelSampler: steps={self.steps}, degree={self.degree}, warmup={self.warmup}; "
                "expected steps and degree of at least 1 and a warmup of at least 0"
            )
        if comm is not None and comm.degree != self.degree:
            raise ConfigError(f"StepParallelSampler: degree {self.degree}, and {comm.degree} ranks")

    def __call__(self, state: Any) -> Any:
        self.rounds = 0
        comm = self.comm or LocalComm(self.degree)
        last, at = None, 0
        # One ordinary step at least, where ranks are to have something to go on from.
        while at < min(self.steps, max(self.warmup, 1 if self.degree > 1 else self.steps)):
            last = self.predict(state, at)
            state = self.step(state, at, last)
            self.rounds += 1
            at += 1
        cached = dict.fromkeys(comm.ranks(), last)
        while at < self.steps:
            active = min(self.degree, self.steps - at)
            state = self._cycle(state, at, active, cached, comm)
            at += active
            self.rounds += 1
        return state

    def _cycle(self, state: Any, at: int, active: int, cached: dict[int, Any], comm: Comm) -> Any:
        """`active` steps from one state that all ranks have; their predictions stay in `cached`."""
        ranks = [rank for rank in comm.ranks() if rank < active]
        ahead = [self._walked(state, at, rank, cached[rank]) for rank in ranks]
        if self.together is not None and len(ranks) > 1:
            made = self.together(ahead, [at + rank for rank in ranks])
        else:
            made = [self.predict(own, at + rank) for own, rank in zip(ahead, ranks, strict=True)]
        cached.update(zip(ranks, made, strict=True))
        predictions = comm.gather({rank: cached[rank] for rank in ranks}, active)
        true = None
        if predictions is not None:
            true = state
            for k, prediction in enumerate(predictions):
                true = self.step(true, at + k, prediction)
        return comm.spread(true)

    def _walked(self, state: Any, at: int, count: int, prediction: Any) -> Any:
        for k in range(count):
            state = self.step(state, at + k, prediction)
        return state
