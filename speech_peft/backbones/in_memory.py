"""A stock transformers model that somebody holds already: its family and its sites, found by its classes.

The table of a family is written for the model that the family opens. The same blocks lie elsewhere in models
around it, `encoder.layers` in WhisperModel and `model.encoder.layers` in WhisperForConditionalGeneration, so
it is the class that holds the blocks that is looked for. Names of sites are the same wherever they lie.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from ..core.saved.save import BackboneCard
from ..core.site import Site
from ..errors import ConfigError
from ..registry import BACKBONES
from .base import Backbone
from .checkpoints.config_json import model_type, read_config
from .checkpoints.weights import resolve_weights
from .families import open_backbone
from .stack import Stack

MEMORY = "memory:"
"""Begins the address of weights that have none: a model that was made or changed in memory, by its class."""


@dataclass(frozen=True)
class InMemory:
    """What is known of a stock model by looking at it."""

    card: BackboneCard
    sites: list[Site]


def look_at(module: nn.Module) -> InMemory:
    """Family, size and sites of a stock model; raises ConfigError for one that no family knows.

    >>> look_at(WhisperForConditionalGeneration.from_pretrained(folder)).card.name      # doctest: +SKIP
    'whisper'
    """
    held = [(family, path, holder) for path, holder in module.named_modules() for family in _families(holder)]
    if not held:
        known = ", ".join(name for family in _every() for name in family.holders)
        raise ConfigError(
            f"{type(module).__name__} has no blocks that are known here; a model that holds one of {known} "
            "is expected. For another one make a table of sites and give it to AdaptedModel(module, sites, …)"
        )
    family, _, first = held[0]
    if len({type(holder) for _, _, holder in held}) < len(held) or any(one[0] is not family for one in held):
        places = ", ".join(f"{path or 'itself'} ({type(holder).__name__})" for _, path, holder in held)
        raise ConfigError(f"{type(module).__name__} holds several encoders: {places}. Give one of them")
    width = _width(first.config)
    stacks = [stack for _, path, holder in held for stack in _stacks(family, path, holder)]
    sites = [site for stack in stacks for site in stack.sites(module, _depth(module, stack), width)]
    return InMemory(_card(module, family.name, width, _depth(module, stacks[0])), sites)


def open_weights(
    weights: str | Path, revision: str | None = None, offline: bool = False, **options: Any
) -> Backbone:
    """A pretrained backbone by the address of its weights alone; its config.json names the family."""
    folder = resolve_weights(weights, revision, offline)
    kind = model_type(read_config(folder))
    for family in _every():
        if any(kind.startswith(known) for known in family.model_types):
            return open_backbone(family.name, weights, revision, offline, **options)
    known = ", ".join(known for family in _every() for known in family.model_types)
    raise ConfigError(f"weights: {weights} is a {kind!r} model; known here are {known}")


def is_in_memory(card: BackboneCard) -> bool:
    """Whether the weights of a card have no address."""
    return card.id.startswith(MEMORY)


def _every() -> list[type[Backbone]]:
    """All families, each kind of conformer by itself."""
    return [kind for family in BACKBONES.values() for kind in family.kinds()]


def _families(holder: nn.Module) -> Iterator[type[Backbone]]:
    names = {kind.__name__ for kind in type(holder).__mro__ if kind.__module__.startswith("transformers.")}
    yield from (family for family in _every() if names & family.holders.keys())


def _stacks(family: type[Backbone], path: str, holder: nn.Module) -> Iterator[Stack]:
    """The family's stacks that this module holds, by their paths from the root."""
    names = {kind.__name__ for kind in type(holder).__mro__}
    for usual in (place for name, place in family.holders.items() if name in names):
        inside = f"{usual}." if usual else ""
        for stack in family.table():
            if stack.path.startswith(inside) and _holds(holder, stack.path.removeprefix(inside)):
                yield _moved(stack, inside, f"{path}." if path else "")


def _holds(holder: nn.Module, path: str) -> bool:
    try:
        return isinstance(holder.get_submodule(path), nn.ModuleList)
    except AttributeError:
        return False


def _depth(module: nn.Module, stack: Stack) -> int:
    return len(cast(nn.ModuleList, module.get_submodule(stack.path)))


def _moved(stack: Stack, old: str, new: str) -> Stack:
    norm = stack.final_norm and new + stack.final_norm.removeprefix(old)
    front = tuple((name, new + path.removeprefix(old)) for name, path in stack.front)
    patches = stack.patches and new + stack.patches.removeprefix(old)
    path = new + stack.path.removeprefix(old)
    return replace(stack, path=path, final_norm=norm, front=front, patches=patches)


def _width(config: Any) -> int:
    return config.d_model if hasattr(config, "d_model") else config.hidden_size


def _card(module: Any, family: str, width: int, depth: int) -> BackboneCard:
    """The address that transformers remembers; that the weights are still those, nobody knows: no digest."""
    config = getattr(module, "config", None)
    address = getattr(config, "_name_or_path", None) or f"{MEMORY}{type(module).__name__}"
    revision = getattr(config, "_commit_hash", None)
    return BackboneCard(name=family, id=address, revision=revision, dim=width, layers=depth)
