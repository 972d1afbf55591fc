"""What one forward pass knows besides its input, and which adapters it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Context:
    """Side information of one forward pass; a method declares the fields it `reads`."""

    task: Int[Tensor, " b"] | None = None
    memory: Float[Tensor, "b m d"] | None = None
    """A condition to attend to."""
    mask: Bool[Tensor, "b t"] | None = None
    """True where a frame holds signal, one entry for each frame that passes the sites in question."""
    timestep: Float[Tensor, " b"] | None = None
    again: bool = False
    """True while gradient checkpointing runs a block for the second time: what counts batches has counted."""


@dataclass
class Current:
    """The state every port of one model shares: one forward at a time, threads get their own copy."""

    active: tuple[str, ...] = ()
    ctx: Context = field(default_factory=Context)

    @contextmanager
    def set(self, active: tuple[str, ...], ctx: Context) -> Iterator[None]:
        before = self.active, self.ctx
        self.active, self.ctx = active, ctx
        try:
            yield
        finally:
            self.active, self.ctx = before


_CURRENT = "_speech_peft_current"


def attach(base: nn.Module, current: Current) -> None:
    """Let `base` know its adapters' state, for whoever runs its submodules one by one."""
    setattr(base, _CURRENT, current)


def detach(base: nn.Module) -> None:
    """Undo `attach`, for a copy that is to be the stock module again."""
    base.__dict__.pop(_CURRENT, None)


@contextmanager
def hearing(base: nn.Module, mask: Bool[Tensor, "b t"] | None) -> Iterator[None]:
    """Let the adapters of `base`, if it has any, see this mask, unless their context has one already."""
    current: Current | None = getattr(base, _CURRENT, None)
    if current is None or mask is None or current.ctx.mask is not None:
        yield
    else:
        with current.set(current.active, replace(current.ctx, mask=mask)):
            yield
