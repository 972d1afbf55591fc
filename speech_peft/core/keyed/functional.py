"""An adapter that is run with parameters from elsewhere, other ones for each row of a batch.

They are made once for each pass and site. A block that gradient checkpointing runs for the second time finds
what was made when it ran first, and the gradient goes to that; while nobody learns they are kept from token
to token.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from ..adapter import Adapter
from ..context import Context
from ..passage.by_row import mark

State = Mapping[str, Tensor]
"""Parameters by name, several sets of them: the first dimension counts these."""


@dataclass(frozen=True)
class Made:
    """Sets of parameters, and which of them each row has."""

    state: State
    whose: Int[Tensor, " b"] | None
    """None: all rows have the only one."""


def run(part: Adapter, made: Made, x: Tensor, y: Tensor) -> Tensor:
    """What the part makes of y with parameters of each row's own; it is told nothing of its clips.

    `part` lends its code alone: it may be on the meta device.
    """
    if made.whose is None:
        return functional_call(
            part, {name: value[0] for name, value in made.state.items()}, (x, y, Context())
        )

    def one(state: State, x: Tensor, y: Tensor) -> Tensor:
        return functional_call(part, dict(state), (x, y, Context()))

    own = {name: value.index_select(0, made.whose) for name, value in made.state.items()}
    return torch.vmap(one, randomness="different")(own, x, y)


class Maker:
    """Makes the parameters of one site, as seldom as it can. A copy of a model has none."""

    def __init__(self) -> None:
        self._last: tuple[Any, ...] | None = None
        self._made: Made | None = None

    def of(
        self,
        ids: Int[Tensor, " b"],
        make: Callable[[Int[Tensor, " k"]], State],
        learned: Iterable[nn.Parameter],
        ctx: Context,
    ) -> Made:
        """What `make` makes of the ids, each once, for the pass that `ctx` is of."""
        if ctx.kept is not None:
            if self not in ctx.kept:
                with saved_tensors_hooks(_itself, _itself):  # not to be computed again, but kept
                    ctx.kept[self] = _made(ids, make)
            return ctx.kept[self]
        now = None if torch.is_grad_enabled() or torch.compiler.is_compiling() else _now(ids, learned)
        if now is None:
            self._last = self._made = None
            return _made(ids, make)
        if self._made is None or now != self._last:
            self._last, self._made = now, _made(ids, make)
        return self._made

    def __deepcopy__(self, memo: Any) -> "Maker":
        return Maker()


def _made(ids: Int[Tensor, " b"], make: Callable[[Tensor], State]) -> Made:
    if torch.compiler.is_compiling():  # in a graph nobody looks at a number
        return Made(make(ids), torch.arange(len(ids), device=ids.device))
    distinct, whose = ids.unique(return_inverse=True)
    return Made(make(distinct), None if len(distinct) == 1 else whose)


def _now(ids: Tensor, learned: Iterable[nn.Parameter]) -> tuple[Any, ...] | None:
    """By what one can tell that the same would be made; None where one cannot."""
    parameters = list(learned)
    if any(parameter.is_inference() for parameter in parameters):
        return None
    return tuple(ids.tolist()), *map(mark, parameters)


def _itself(tensor: Tensor) -> Tensor:
    return tensor
