"""The memory that a saved adapter may take while it is built, known from its file before anything is.

An adapter.json is a few lines, and may ask for a matrix of a trillion numbers or for a billion experts. Its
tensors lie beside it, and their header says how large they are: what is built must fit to them. So every
tensor that is made from nothing is counted before it is made, whichever method or decoder makes it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...errors import ConfigError

NUMBERS_PER_BYTE = 16
"""Packed to one bit, a byte of a file holds eight numbers; some are drawn before they are copied."""
SPARE = 10_000_000
"""What small adapters may take beside what they hold: tables, draws, masks."""
OF_THE_BASE = 2
"""Masks over frozen weights are as large as these, and a file may hold next to nothing of them."""
MOST_STEPS = 200_000
"""Of tensor operations; an adapter at all sites of the largest encoders takes some ten thousands."""
_BY_SIZES = ("new_", "repeat", "expand")
"""Operations on a tensor that make one of the sizes they are given."""


@dataclass(frozen=True)
class Room:
    """How much may be made for what an adapter folder holds."""

    card: Path
    """The adapter.json that asks for it."""
    file: Path
    nbytes: int
    """Of the tensors of the file."""

    @contextmanager
    def kept(self, base: nn.Module | None = None) -> Iterator[None]:
        """Inside, raise ConfigError rather than make more than the file, and the base, account for."""
        own = sum(p.numel() for p in base.parameters()) if base is not None else 0
        with _Counted(self, NUMBERS_PER_BYTE * self.nbytes + OF_THE_BASE * own + SPARE):
            yield

    def exceeded(self, asked: str) -> ConfigError:
        return ConfigError(
            f"{self.card}: what it describes takes {asked}, far more than the {self.nbytes:,} bytes of "
            f"{self.file.name} can fill. Is a number in it (a rank, a width, a count) of another adapter?"
        )


class _Counted(TorchDispatchMode):
    """Counts the numbers of tensors that are made from nothing."""

    def __init__(self, room: Room, most: int):
        super().__init__()
        self.room, self.most = room, most
        self.made = self.steps = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled in here, and keeping the compiler out would import it, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise self.room.exceeded(f"more than {MOST_STEPS:,} steps to build")
        self.made += _numbers(func, args)
        if self.made > self.most:
            raise self.room.exceeded(f"{self.made:,} numbers or more")
        return func(*args, **(kwargs or {}))


def _numbers(func: Any, args: tuple[Any, ...]) -> int:
    """How many numbers an operation makes of sizes alone; 0 for what computes with tensors."""
    name = func.overloadpacket.__name__
    on_tensor = bool(args) and isinstance(args[0], Tensor)
    if on_tensor and not name.startswith(_BY_SIZES):
        return 0
    sizes = next((arg for arg in args if isinstance(arg, list | tuple)), None)
    if sizes is not None:
        times = args[0].numel() if name == "repeat" else 1
        return times * math.prod(n for n in sizes if isinstance(n, int) and n >= 0)  # -1 in expand: as it is
    counts = [int(arg) for arg in args if isinstance(arg, int | float) and abs(arg) < math.inf]
    return math.prod(counts) if name == "eye" else max([0, *counts])
