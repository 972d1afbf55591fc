"""The two things that can sit at a site: an adapter, and a mixer of adapters."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import SpeechPeftError
from .context import Context
from .low_rank import LowRank
from .selection import Selection


class NotMergeable(SpeechPeftError):
    """The adapter is not a change of one weight, so it cannot disappear into the base."""


@dataclass(frozen=True)
class Units:
    """Inner units of an adapter that could stand in any order, and the tensors that hold their order."""

    layer: nn.Module
    """Gives a number for each unit, of what enters."""
    activation: Callable[[Tensor], Tensor]
    """What becomes of these numbers."""
    rows: tuple[str, ...]
    """Tensors with a row for each unit, by their names in the adapter: by what they hear it."""
    columns: tuple[str, ...]
    """Tensors with a column for each: what they do when they are heard."""


class Adapter(nn.Module):
    """Rewrites one site's output. `x` entered the site, `y` is what the frozen model made of it."""

    def before(self, x: Float[Tensor, "..."], ctx: Context) -> Float[Tensor, "..."]:
        """What the frozen modules get to see instead of `x`. Frames that are added come first."""
        return x

    def added(
        self, x: Float[Tensor, "..."], ctx: Context
    ) -> tuple[Float[Tensor, "b p d"], Float[Tensor, "b p d"]] | None:
        """Keys and values that the attention at this site attends to before its own."""
        return None

    def select(self, x: Float[Tensor, "b t d"], ctx: Context) -> Selection | None:
        """The frames that the frozen modules work on; None for all. `forward` sees all frames either way."""
        return None

    def forward(
        self, x: Float[Tensor, "... i"], y: Float[Tensor, "... o"], ctx: Context
    ) -> Float[Tensor, "... o"]:
        raise NotImplementedError

    def to_lora(self, weight: Tensor, bias: Tensor | None) -> LowRank:
        """The LoRA that does exactly what the adapter does at the frozen layer of this weight and bias.

        Whoever says so merges by it, and can be written into PEFT's files. Raises NotMergeable where no such
        LoRA exists.
        """
        raise NotMergeable(f"{type(self).__name__.strip('_')} is no low-rank change of one weight")

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The weight and bias of the frozen layer that would alone do what layer and adapter do together.

        Raises NotMergeable where no such weight exists.
        """
        return self.to_lora(weight, bias).onto(weight, bias)

    def condensed(self) -> dict[str, Tensor] | None:
        """What a file holds of it, under names of its state, where all else in the state may be zero instead.

        None: a file holds all of its state.
        """
        return None

    def units(self) -> Units | None:
        """Its inner units; None where there are none whose order is free."""
        return None

    def fold(self) -> None:
        """Move into its matrices what multiplies them, so that the mean of adapters is one of their effects.

        What it does stays the same. Raises NotMergeable where they cannot hold it.
        """

    @property
    def changes_input(self) -> bool:
        """Whether the adapter has a `before` of its own."""
        return type(self).before is not Adapter.before

    @property
    def selects_frames(self) -> bool:
        """Whether the adapter has a `select` of its own."""
        return type(self).select is not Adapter.select

    @property
    def changes_attention(self) -> bool:
        """Whether the adapter brings keys and values."""
        return type(self).added is not Adapter.added

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision the adapter computes in; None when it has no parameters."""
        return next((p.dtype for p in self.parameters()), None)


class Mixer(nn.Module):
    """Combines what the adapters named in `over` would each have made of y at the same site.

    They need not be active themselves; where they are, they run inside the mixer alone.
    """

    over: tuple[str, ...]

    def before(self, x: Tensor, inputs: list[Tensor], ctx: Context) -> Tensor:
        """Combines what each of `over` would have let the frozen modules see instead of `x`.

        A mixer without one of its own is refused over adapters that change what enters.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, y: Tensor, outputs: list[Tensor], ctx: Context) -> Tensor:
        raise NotImplementedError

    @property
    def mixes_input(self) -> bool:
        """Whether the mixer has a `before` of its own."""
        return type(self).before is not Mixer.before

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision the mixer computes in; None when it has no parameters."""
        return next((p.dtype for p in self.parameters()), None)
