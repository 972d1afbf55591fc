"""Linear adapters disappear into the base: a stock model that does what base and adapters did."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..core.adapter import Adapter, NotMergeable
from ..core.model import AdaptedModel
from ..core.passage.hooks import detach
from ..core.site import Site, resolve


@torch.no_grad()
def merge(model: AdaptedModel, *names: str) -> nn.Module:
    """A stock copy of the base with the named adapters (default: the active ones) in its weights.

    The sums are done in fp64 and rounded once to the weight's own precision. Raises NotMergeable naming the
    site where an adapter is no change of one weight.
    """
    return _merged(model, names or model.active, {})


@torch.no_grad()
def merge_sharing(model: AdaptedModel, *names: str) -> nn.Module:
    """The same, whose weights are the base's own tensors wherever no adapter sits: to be read, not changed.

    It takes the memory of the weights that adapters change.
    """
    own = (*model.base.parameters(), *model.base.buffers())
    return _merged(model, names or model.active, {id(tensor): tensor for tensor in own})


def _merged(model: AdaptedModel, names: Sequence[str], kept: dict[int, Any]) -> nn.Module:
    """`kept` are tensors that are not copied, by their ids."""
    merged = deepcopy(model.base, kept)
    detach(merged)
    for site in {site: None for name in names for site in model.sites[name]}:
        _merge_at(site, _in_order(model, names, site), resolve(merged, site.exit))
    return merged


def _in_order(model: AdaptedModel, names: Sequence[str], site: Site) -> list[Adapter]:
    """The adapters of one site, outputs first: y = (… W …)(B_n … B_1 x) absorbs its inputs from the left."""
    parts = [model.at(name, site) for name in names if site in model.sites[name]]
    adapters = [part for part in parts if isinstance(part, Adapter)]
    if len(adapters) < len(parts):
        raise NotMergeable(f"at {site.name} a mixer combines other adapters")
    inputs = [part for part in adapters if part.changes_input]
    return [part for part in adapters if part not in inputs] + inputs[::-1]


def _merge_at(site: Site, parts: Sequence[Adapter], layer: nn.Module) -> None:
    stored, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if site.entry != site.exit or not isinstance(stored, Tensor):
        raise NotMergeable(f"{site.name} has no weight of its own; merging works at linear and norm sites")
    weight, bias = stored.double(), None if bias is None else bias.double()
    for part in parts:
        try:
            weight, bias = deepcopy(part).double().merged(weight, bias)
        except NotMergeable as refused:
            raise NotMergeable(f"at {site.name} {refused}") from None
    if bias is not None and not hasattr(layer, "bias"):
        raise NotMergeable(f"{site.name} is a {type(layer).__name__}, which adds no bias")
    layer.weight = _frozen(weight, stored)
    if hasattr(layer, "bias"):
        layer.register_parameter("bias", None if bias is None else _frozen(bias, stored))


def _frozen(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.dtype), requires_grad=False)
