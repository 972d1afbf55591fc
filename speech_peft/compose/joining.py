"""How several adapters become one, and what is made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.site import Site
from ..errors import ConfigError
from .alignment import Alignment

How = Literal["average", "sum", "mera", "cat", "svd", "ties", "dare"]
MEANS = ("average", "mera", "ties")
"""Factors of these are shares; of the others what each is multiplied by."""
OF_LORAS = ("cat", "svd", "ties", "dare")
"""These join what adapters change, not their tensors."""
Activations = Mapping[str, Sequence[Float[Tensor, "r m"]]]
"""By the names of sites, of each adapter: what its units gave on the same frames."""


@dataclass(frozen=True)
class Joining:
    """How adapters become one."""

    how: How = "average"
    factors: tuple[float, ...] = ()
    """One for each adapter; by default all 1."""
    rank: int | None = None
    """Of a joined LoRA; by default that of the adapters, of `cat` their sum."""
    density: float = 0.5
    """The share of entries that `ties` and `dare` keep."""
    anchor: int | None = None
    """Whose order of units holds in `mera`, counted from 0; None: the cheapest."""
    seed: int = 0
    """Of what `dare` drops."""

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise ConfigError(f"how: there is no {self.how!r}; expected {', '.join(get_args(How))}")
        if not 0 < self.density <= 1:
            raise ConfigError(f"density: {self.density} is no share; expected more than 0 and at most 1")
        if self.how in MEANS and self.factors and sum(self.factors) <= 0:
            raise ConfigError(f"factors: of {self.how} they are shares, and {self.factors} sum to nothing")

    def factors_of(self, many: int) -> list[float]:
        """One number for each adapter; of a mean they sum to 1. Raises ConfigError for another count."""
        given = list(self.factors) or [1.0] * many
        if len(given) != many:
            raise ConfigError(f"factors: {len(given)} of them, and {many} adapters; give one for each")
        return [f / sum(given) for f in given] if self.how in MEANS else given


@dataclass(frozen=True)
class Joined:
    """One adapter that was made of several."""

    method: Method
    parts: Mapping[str, Mapping[str, Tensor]]
    """Its tensors by site."""
    shared: Mapping[str, Tensor]
    lost: float = 0.0
    """Of what is changed, the largest share at any site that the rank has no room for."""
    alignment: Alignment | None = None

    @torch.no_grad()
    def attached(self, base: nn.Module, sites: Sequence[Site], name: str = "adapter") -> AdaptedModel:
        """A model of this adapter alone, on a base that carries no other."""
        model = AdaptedModel(base, sites, {name: self.method})
        self._fill(model, name)
        return model

    @torch.no_grad()
    def added(self, model: AdaptedModel, name: str) -> None:
        """Put it beside the adapters of a model, under a name that is free."""
        model.add(name, self.method)
        self._fill(model, name)

    def _fill(self, model: AdaptedModel, name: str) -> None:
        for site in model.sites[name]:
            model.at(name, site).load_state_dict(dict(self.parts[site.name]))
        if self.shared:
            model.shared[name].load_state_dict(dict(self.shared))
