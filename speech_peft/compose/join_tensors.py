"""Adapters of one kind joined tensor by tensor, with their inner units in one order where that is asked."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.adapter import Adapter, NotMergeable
from ..core.model import AdaptedModel
from ..core.site import Site
from ..errors import ConfigError
from .alignment import Alignment, align, by_weights, reorder, units_of
from .joining import Activations, Joined, Joining


def join_tensors(
    model: AdaptedModel,
    names: Sequence[str],
    joining: Joining,
    factors: Sequence[float],
    activations: Activations,
) -> Joined:
    """The weighed sum of their tensors; raises ConfigError where two are not of one kind."""
    first = names[0]
    for name in names[1:]:
        _check_alike(model, first, name)
    alignment = None
    for name in names:
        for site in model.sites[name]:
            _prepared(model, name, site, joining.how == "mera")
    if joining.how == "mera":
        alignment = _aligned(model, names, joining.anchor, activations)
    parts = {
        site.name: _weighed([model.at(name, site) for name in names], factors, site.name)
        for site in model.sites[first]
    }
    shared = {}
    if first in model.shared:
        shared = _weighed([model.shared[name] for name in names], factors, "shared")
    method = model.methods[first].model_copy(
        update={"sites": tuple(site.name for site in model.sites[first]), "top": None}
    )
    return Joined(method, parts, shared, alignment=alignment)


def _check_alike(model: AdaptedModel, one: str, other: str) -> None:
    a, b = model.methods[one], model.methods[other]
    place = {"sites": (), "top": None}
    if type(a) is not type(b) or model.sites[one] != model.sites[other]:
        raise ConfigError(
            f"{other} is a {b.name} at {len(model.sites[other])} sites, and {one} a {a.name} at "
            f"{len(model.sites[one])}: only adapters of one kind have tensors that can be averaged"
        )
    if a.model_copy(update=place) != b.model_copy(update=place):
        mine, theirs = a.model_dump(exclude={"sites", "top"}), b.model_dump(exclude={"sites", "top"})
        differ = "; ".join(f"{k} is {v!r} and {theirs[k]!r}" for k, v in mine.items() if theirs[k] != v)
        raise ConfigError(f"{one} and {other} have other settings: {differ}")


def _prepared(model: AdaptedModel, name: str, site: Site, by_units: bool) -> None:
    part = model.at(name, site)
    try:
        if isinstance(part, Adapter):
            part.fold()
        if by_units:
            units_of(part)
    except NotMergeable as refused:
        raise ConfigError(
            f"{name} is a {model.methods[name].name}, and at {site.name} {refused}. Take --how average"
        ) from None


def _aligned(
    model: AdaptedModel, names: Sequence[str], anchor: int | None, activations: Activations
) -> Alignment:
    """The units of all in one order, by what they gave where that is known, else by what they hear by."""
    sites = model.sites[names[0]]
    vectors = {
        site.name: activations.get(site.name) or [by_weights(model.at(name, site)) for name in names]  # type: ignore[arg-type]
        for site in sites
    }
    found = align(vectors, anchor)
    for site in sites:
        for name, order in zip(names, found.orders[site.name], strict=True):
            reorder(model.at(name, site), order)  # type: ignore[arg-type]
    return found


@torch.no_grad()
def _weighed(parts: Sequence[nn.Module], factors: Sequence[float], where: str) -> dict[str, Tensor]:
    """Their tensors, each by its factor, in sum; what are no floats has to be the same in all."""
    states = [part.state_dict() for part in parts]
    found = {}
    for key, first in states[0].items():
        each = [state[key] for state in states]
        if first.is_floating_point():
            total = sum(f * tensor.double() for f, tensor in zip(factors, each, strict=True))
            found[key] = torch.as_tensor(total).to(first.dtype)
        elif all(torch.equal(first, other) for other in each):
            found[key] = first.clone()
        else:
            raise ConfigError(
                f"{where}.{key} differs, and holds no numbers that could be averaged: these adapters began "
                "in other places"
            )
    return found
