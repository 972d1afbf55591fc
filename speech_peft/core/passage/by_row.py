"""Adapters that run for some rows of a batch: who runs at a site, and those of low rank as one product."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..adapter import Adapter, Mixer, NotMergeable
from ..low_rank import LowRank
from ..rows import Rows, Run


def runs_of(
    rows: Rows, order: Callable[[tuple[str, ...]], Sequence[str]], device: torch.device
) -> tuple[Run, ...]:
    """Who runs for which rows, where `order` says of adapters that are active who runs here, and when.

    Every row has its own adapters in their order; rows do not hear of each other, so theirs may interleave.
    """
    here = {names: tuple(order(names)) for names in dict.fromkeys(rows.names)}
    left = [list(here[names]) for names in rows.names]
    found: list[Run] = []
    while any(left):
        # The next of some row that no other row has further behind: it then runs once for all who have it.
        name = next(
            (row[0] for row in left if row and not any(row[0] in other[1:] for other in left)),
            next(row[0] for row in left if row),
        )
        mine = [i for i, row in enumerate(left) if row and row[0] == name]
        for i in mine:
            left[i].pop(0)
        every = len(mine) == len(left)
        found.append(Run(name, None if every else torch.tensor(mine, device=device)))
    return tuple(found)


def low_rank(
    runs: Sequence[Run], peers: Mapping[str, Adapter | Mixer], layer: nn.Module
) -> dict[str, LowRank] | None:
    """What each adapter here amounts to; None unless all are changes of low rank that are not in training."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or len(runs) < 2:
        return None
    found = {}
    for run in runs:
        part = peers[run.name]
        if not isinstance(part, Adapter) or part.training or part.changes_input:
            return None
        try:
            found[run.name] = part.to_lora(weight, getattr(layer, "bias", None))
        except NotMergeable:
            return None
    return found


@dataclass(frozen=True)
class Product:
    """What is multiplied in one turn: the matrices of each row's adapter, zeros where it has none."""

    a: Float[Tensor, "b i r"]
    b: Float[Tensor, "b r o"]
    bias: Float[Tensor, "b o"] | None


class Products:
    """The matrices of all rows at one site, kept from token to token while nobody learns and none changes."""

    def __init__(self) -> None:
        self._known: tuple[Any, ...] | None = None
        self._runs: Sequence[Run] = ()
        self._kept: list[Product] = []

    def of(self, runs: Sequence[Run], loras: Mapping[str, LowRank], batch: int) -> list[Product]:
        """By turns: as many as some row has adapters."""
        known = _state(loras, batch)
        if known is None or known != self._known or runs is not self._runs:
            self._kept, self._known, self._runs = _made(runs, loras, batch), known, runs
        kept = self._kept
        if known is None:
            self._kept = []
        return kept

    def __deepcopy__(self, memo: Any) -> "Products":
        return Products()


def one_product(
    products: Sequence[Product], x: Float[Tensor, "b t i"], y: Float[Tensor, "b t o"]
) -> Float[Tensor, "b t o"]:
    """y with every row's own changes of low rank, of all rows by one batched product a turn."""
    own, changed = x.to(products[0].a.dtype), y.to(products[0].a.dtype)
    for turn in products:
        changed = torch.baddbmm(changed, torch.bmm(own, turn.a), turn.b)
        if turn.bias is not None:
            changed = changed + turn.bias[:, None]
    return changed.to(y.dtype)


def _state(loras: Mapping[str, LowRank], batch: int) -> tuple[Any, ...] | None:
    """By what one can tell that nothing has changed; None where one cannot, or somebody learns."""
    tensors = [t for lora in loras.values() for t in (lora.a, lora.b, lora.bias) if t is not None]
    owned = all(isinstance(tensor, nn.Parameter) and not tensor.is_inference() for tensor in tensors)
    if torch.is_grad_enabled() or not owned:
        return None
    scales = tuple(lora.alpha for lora in loras.values())
    return batch, scales, *map(mark, tensors)


def mark(tensor: Tensor) -> tuple[int, int, int, torch.dtype]:
    """By what one can tell that a parameter is the same and has not changed."""
    return id(tensor), tensor.data_ptr(), tensor._version, tensor.dtype


def _made(runs: Sequence[Run], loras: Mapping[str, LowRank], batch: int) -> list[Product]:
    most = max(lora.rank for lora in loras.values())
    even = [lora.padded(most) for lora in loras.values()]
    a = torch.stack([torch.zeros_like(even[0].a), *(lora.a for lora in even)]).mT
    b = torch.stack([torch.zeros_like(even[0].b), *(lora.b for lora in even)]).mT
    none, shifts = b.new_zeros(b.shape[2]), None
    if any(lora.bias is not None for lora in even):
        shifts = torch.stack([none, *(none if lora.bias is None else lora.bias for lora in even)])
    numbers = {name: i + 1 for i, name in enumerate(loras)}
    turns = (torch.tensor(whose, device=a.device) for whose in _turns(runs, numbers, batch))
    return [Product(a[index], b[index], None if shifts is None else shifts[index]) for index in turns]


def _turns(runs: Sequence[Run], numbers: Mapping[str, int], batch: int) -> list[list[int]]:
    """By turns, the adapter of each row; 0 is none. As many turns as some row has adapters."""
    each: list[list[int]] = [[] for _ in range(batch)]
    for run in runs:
        for row in range(batch) if run.rows is None else run.rows.tolist():
            each[row].append(numbers[run.name])
    turns = max(len(row) for row in each)
    return [[row[turn] if turn < len(row) else 0 for row in each] for turn in range(turns)]
