"""What an adapter amounts to at one site: computed in fp64 beside the frozen layer, and rounded once."""

from copy import deepcopy

import torch
from torch import Tensor

from ..core.adapter import Adapter, NotMergeable
from ..core.low_rank import LowRank
from ..core.model import AdaptedModel
from ..core.site import Site, resolve


def at_layer(model: AdaptedModel, name: str, site: Site) -> tuple[Adapter, Tensor, Tensor | None]:
    """The adapter at a site and the layer's weight and bias, all in fp64.

    Raises NotMergeable where no one weight lies there.
    """
    part, layer = model.at(name, site), resolve(model.base, site.exit)
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if not isinstance(part, Adapter) or not isinstance(weight, Tensor) or site.entry != site.exit:
        raise NotMergeable(f"{type(part).__name__.strip('_')} is no low-rank change of one weight")
    return deepcopy(part).double(), weight.double(), None if bias is None else bias.double()


def stated(model: AdaptedModel, name: str, site: Site) -> LowRank:
    """The LoRA that adapter `name` is at one site; raises NotMergeable where it is none."""
    part, weight, bias = at_layer(model, name, site)
    return part.to_lora(weight, bias).to(model.at(name, site).dtype or torch.float32)


def states_lora(model: AdaptedModel, name: str) -> bool:
    """Whether an adapter is of those that say what LoRA they are, at each of their sites."""
    parts = [model.at(name, site) for site in model.sites[name]]
    return bool(parts) and all(
        isinstance(part, Adapter) and type(part).to_lora is not Adapter.to_lora for part in parts
    )
