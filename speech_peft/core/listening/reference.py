"""What the frozen model makes of other recordings, for adapters that listen to these besides their own input.

A reference goes once through the frozen model, with no adapter active, and what enters each site where one
listens is noted. So it is the same for every batch and every layer's adapter, and can be kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...errors import ConfigError


@dataclass(frozen=True)
class Reference:
    """States of n recordings at the sites where adapters listen to them, and which of them each row hears."""

    states: Mapping[str, Float[Tensor, "n r d"]]
    """By the name of a site: what entered it."""
    mask: Bool[Tensor, "n r"]
    """True where a frame is listened to. A recording without any is as if there were none."""
    rows: Int[Tensor, " b"] | None = None
    """Of each row of a batch, the recording that it listens to. None: every row hears the only one."""

    def at(self, site: str) -> Float[Tensor, "n r d"]:
        """The states at a site; raises ConfigError, naming it, where nothing was noted."""
        if site not in self.states:
            known = ", ".join(self.states) or "no site"
            raise ConfigError(
                f"{site}: the reference was noted at {known}, and an adapter listens to it here. "
                "Note it with the adapters of this model: only sites of the encoder can be"
            )
        return self.states[site]

    def by_row(self, of_each: Tensor, rows: int) -> Tensor:
        """Of something that each recording has, what belongs to each of so many rows."""
        if self.rows is None:
            return of_each.expand(rows, *of_each.shape[1:])
        return of_each.index_select(0, self.rows)

    def picked(self, rows: Int[Tensor, " k"]) -> "Reference":
        """For these rows of the batch, in this order."""
        return self if self.rows is None else replace(self, rows=self.rows[rows.to(self.rows.device)])

    def repeated(self, times: int) -> "Reference":
        """For a batch that is run so many times over, one whole batch behind the other."""
        return self if self.rows is None else replace(self, rows=self.rows.repeat(times))

    def to(self, device: torch.device | str) -> "Reference":
        """The same on a device."""
        states = {name: x.to(device) for name, x in self.states.items()}
        return Reference(states, self.mask.to(device), None if self.rows is None else self.rows.to(device))
