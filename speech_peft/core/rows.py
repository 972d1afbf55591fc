"""Which adapters run may differ from one row of a batch to the next."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """The adapters of each row, in the order in which they are applied."""

    names: tuple[tuple[str, ...], ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Those that run for some row, as they come first."""
        return tuple(dict.fromkeys(name for row in self.names for name in row))

    @property
    def alike(self) -> bool:
        """Whether every row has the same."""
        return len(set(self.names)) <= 1

    def picked(self, rows: Sequence[int]) -> "Rows":
        """Of these rows, in this order."""
        return Rows(tuple(self.names[row] for row in rows))

    def repeated(self, times: int) -> "Rows":
        """Of the whole batch so many times, one behind the other."""
        return Rows(self.names * times)


@dataclass(frozen=True)
class Run:
    """One adapter at one site in one forward."""

    name: str
    rows: Int[Tensor, " k"] | None = None
    """Those it runs for; None: all."""
