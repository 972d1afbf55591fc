"""Adapters that differ by task or language: that of one name as an ordinary one, and room for more names."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from ..core.keyed.keyed import Keyed, KeyedAdapter
from ..core.model import AdaptedModel
from ..core.saved.save import parts_of
from ..errors import ConfigError

_KNOWN, _FRESH = ".known", ".fresh"
"""What `core.keyed.named.Named` calls rows of names that were learned before, and of those that are new."""
States = dict[str, dict[str, Tensor]]
"""By what a part is called, its tensors."""


def keyed(model: AdaptedModel, name: str) -> Keyed:
    """The method of an adapter; raises ConfigError where it does not differ by task or language."""
    method = model.methods[name]
    if not isinstance(method, Keyed):
        raise ConfigError(
            f"adapter {name!r} is a {method.name}, which does not differ by task or language; "
            "poly and hyper do"
        )
    return method


@torch.no_grad()
def ordinary(model: AdaptedModel, name: str, who: str | None) -> States:
    """The parts of the ordinary adapter for one task or language; None: for one that nobody names."""
    id = keyed(model, name).number(who)
    parts = {site.name: cast(KeyedAdapter, model.at(name, site)) for site in model.sites[name]}
    return {site: _copied(part.ordinary(id)) for site, part in parts.items()}


def states(model: AdaptedModel, name: str) -> States:
    """The parts of an adapter as they are."""
    return {place: _copied(part.state_dict()) for place, part in parts_of(model, name).items()}


@torch.no_grad()
def fill(model: AdaptedModel, name: str, given: States) -> None:
    """Copy parts into those of an adapter, which may have more names: theirs stay as they are."""
    for place, part in parts_of(model, name).items():
        for key, own in part.state_dict().items():
            if not key.endswith(_FRESH):
                own.copy_(_with_fresh(given[place], key))


def _with_fresh(state: Mapping[str, Tensor], key: str) -> Tensor:
    """A tensor; where it is that of known names, with those that were fresh behind it."""
    fresh = key.removesuffix(_KNOWN) + _FRESH
    return torch.cat([state[key], state[fresh]]) if key.endswith(_KNOWN) and fresh in state else state[key]


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}
