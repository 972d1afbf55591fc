"""Adapters that amount to LoRAs joined by what they change, site by site."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.adapter import NotMergeable
from ..core.low_rank import LowRank
from ..core.model import AdaptedModel
from ..core.site import Site
from ..errors import ConfigError
from ..methods.lora import Lora
from . import changes
from .joining import Joined, Joining
from .stated import stated


def join_changes(
    model: AdaptedModel, names: Sequence[str], joining: Joining, factors: Sequence[float]
) -> Joined:
    """One LoRA at every site where any of them sits; raises ConfigError where one is no LoRA."""
    sites = list(dict.fromkeys(site for name in names for site in model.sites[name]))
    random = torch.Generator().manual_seed(joining.seed)
    each = {site: _stated(model, names, site, factors) for site in sites}
    most = max(change.rank for found, _ in each.values() for change in found)
    everything = max(sum(change.rank for change in found) for found, _ in each.values())
    rank = joining.rank or (everything if joining.how == "cat" else most)
    if joining.how == "cat" and rank < everything:
        raise ConfigError(f"rank: {rank} has no room for the exact sum, of rank {everything}; take --how svd")
    made, lost = {}, 0.0
    for site, (found, own) in each.items():
        change, missing = _one(found, own, joining, rank, random)
        made[site], lost = change, max(lost, missing)
    with_bias = any(change.bias is not None for change in made.values())
    method = Lora(
        rank=rank,
        alpha=float(rank),
        dropout=max(change.dropout for change in made.values()),
        bias=with_bias,
        sites=tuple(site.name for site in sites),
    )
    return Joined(method, {site.name: _tensors(c, with_bias) for site, c in made.items()}, {}, lost)


def _stated(
    model: AdaptedModel, names: Sequence[str], site: Site, factors: Sequence[float]
) -> tuple[list[LowRank], list[float]]:
    """What the adapters at a site amount to, and their factors; not every one has to sit there."""
    here = [(name, f) for name, f in zip(names, factors, strict=True) if site in model.sites[name]]
    try:
        return [stated(model, name, site) for name, _ in here], [f for _, f in here]
    except NotMergeable as refused:
        raise ConfigError(f"at {site.name}: {refused}") from None


def _one(
    found: Sequence[LowRank], factors: Sequence[float], joining: Joining, rank: int, random: torch.Generator
) -> tuple[LowRank, float]:
    if joining.how == "ties":
        return changes.elected(found, factors, rank, joining.density)
    if joining.how == "dare":
        return changes.thinned(found, factors, rank, joining.density, random)
    whole = changes.concatenated([change.to(torch.float64) for change in found], factors)
    near, lost = changes.compressed(whole, rank)
    return near.to(found[0].a.dtype), lost


def _tensors(change: LowRank, with_bias: bool) -> dict[str, Tensor]:
    found = {"a": change.a, "b": change.b}
    if with_bias:
        found["bias"] = change.b.new_zeros(len(change.b)) if change.bias is None else change.bias
    return found
