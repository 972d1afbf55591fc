"""Linear adapters disappear into the base: a stock model that does what base and adapters did."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .adapter import Adapter, NotMergeable
from .model import AdaptedModel
from .port import Port
from .recompute import Recompute
from .site import Site, resolve


@torch.no_grad()
def merge(model: AdaptedModel, *names: str) -> nn.Module:
    """A stock copy of the base with the named adapters (default: the active ones) in its weights.

    The sums are done in fp64 and rounded once to the weight's own precision. Raises NotMergeable naming the site
    where an adapter is no change of one weight.
    """
    names = names or model.active
    merged = deepcopy(model).base
    strip_hooks(merged)
    for name in names:
        for site in model.sites[name]:
            part = model.at(name, site)
            layer = resolve(merged, site.exit)
            weight, bias = _weights(layer, site)
            if not isinstance(part, Adapter):
                raise NotMergeable(type(part), f"at {site.name} it mixes other adapters")
            try:
                exact = deepcopy(part).double()
                new_weight, new_bias = exact.merged(weight.double(), None if bias is None else bias.double())
            except NotMergeable as refused:
                raise NotMergeable(type(part), f"at {site.name}: {refused}") from None
            layer.weight = _frozen(new_weight, weight)
            layer.bias = None if new_bias is None else _frozen(new_bias, weight)
    return merged


def _weights(layer: nn.Module, site: Site) -> tuple[Tensor, Tensor | None]:
    weight = getattr(layer, "weight", None)
    if site.entry != site.exit or not isinstance(weight, Tensor):
        raise ConfigError(
            f"{site.name} has no weight of its own to merge into; merging works at linear sites"
        )
    return weight, getattr(layer, "bias", None)


def _frozen(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.dtype), requires_grad=False)


def strip_hooks(base: nn.Module) -> None:
    """Take our hooks off a copied base, which makes it the stock module again."""
    for module in base.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [k for k, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), Port)]:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
        if isinstance(module.__dict__.get("forward"), Recompute):
            del module.__dict__["forward"]
