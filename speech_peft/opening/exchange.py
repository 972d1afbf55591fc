"""One saved adapter in the place of another, on a base that is open."""

from pathlib import Path

import torch

from ..core.method import Mixing
from ..core.model import AdaptedModel
from ..core.passage.hooks import detach
from ..core.saved.hub import locate
from ..core.saved.save import BackboneCard, Saved, read
from ..core.wrapping import Wrapping
from ..errors import ConfigError
from .companions import with_companions
from .loading import Opened, attached

_PLACE = {"sites": (), "top": None}


def check_alike(model: AdaptedModel, name: str, saved: Saved) -> None:
    """Raise ConfigError unless a saved adapter has the tensors of adapter `name`, at the same sites."""
    own, sites = model.methods[name], tuple(site.name for site in model.sites[name])
    if type(saved.method) is not type(own) or saved.sites != sites:
        raise ConfigError(
            f"{saved.folder} is a {saved.method.name} at {len(saved.sites)} sites, and {name!r} a "
            f"{own.name} at {len(sites)}; only one of the same kind takes its place. Open it by itself"
        )
    if saved.method.model_copy(update=_PLACE) != own.model_copy(update=_PLACE):
        raise ConfigError(
            f"{saved.folder} has other settings than {name!r}: {saved.method!r}. Open it by itself"
        )
    for mixer, method in model.methods.items():
        if isinstance(method, Mixing) and name in method.over:
            raise ConfigError(f"{name!r} cannot be swapped: {mixer!r} was trained over it as it is")


def swap(model: AdaptedModel, name: str, address: str | Path, card: BackboneCard | None = None) -> None:
    """Put the numbers of a saved adapter in the place of those of adapter `name`; nothing is hooked anew.

    Raises ConfigError, and leaves everything as it was, where the two are not of one kind, or of another base
    than `card`.
    """
    saved = read(locate(address))
    check_alike(model, name, saved)
    saved.load_into(model, name, card)


def exchanged(opened: Opened, address: str | Path, device: torch.device, offline: bool = False) -> Opened:
    """The same base with another adapter: in place where it is of the same kind, else hooked anew.

    Raises ConfigError, and leaves everything as it was, where it is for another base, or was trained with
    other options of it.
    """
    saved = read(locate(address, offline=offline))
    backbone, before = opened.backbone, opened.saved
    _check_fits(opened, saved)
    in_place = before is not None and len(opened.model.methods) == 1 and not saved.manifest.together
    if in_place and not isinstance(saved.method, Wrapping) and not saved.head_config:
        (name,) = opened.model.methods
        try:
            check_alike(opened.model, name, saved)
        except ConfigError:
            pass
        else:
            saved.load_into(opened.model, name)
            return Opened(backbone, opened.model, saved, {}, (name,), {saved.folder.name: saved})
    group = with_companions(saved, offline)
    opened.model.detach()
    try:
        return attached(backbone, saved, group, device, offline)
    except ConfigError:
        detach(backbone.module)
        opened.model.reattach()
        raise


def _check_fits(opened: Opened, saved: Saved) -> None:
    card = opened.backbone.card()
    saved.check_backbone(card)
    trained = opened.saved is not None and opened.saved.base_trained
    if saved.base_trained or trained:
        raise ConfigError(f"{saved.folder}: a fully fine-tuned encoder is another base; open it by itself")
    theirs = saved.backbone.options
    differ = [k for k in theirs.keys() | card.options.keys() if theirs.get(k) != card.options.get(k)]
    if differ:
        why = "; ".join(
            f"{k} is {theirs.get(k)!r} there and {card.options.get(k)!r} here" for k in sorted(differ)
        )
        raise ConfigError(f"{saved.folder} was trained with other options of its base: {why}")
