"""Several saved adapters on one backbone, which is loaded once, to be used one at a time."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..backbones.base import Backbone
from ..core.model import AdaptedModel
from ..core.saved.hub import locate
from ..core.saved.save import Saved, read
from ..errors import ConfigError
from .companions import with_companions
from .loading import NAME, Opened, backbone_of, heads_of, joined, load, on


@dataclass(frozen=True)
class Together:
    """Several adapters attached to one backbone, to be used one at a time."""

    backbone: Backbone
    model: AdaptedModel
    parts: dict[str, tuple[str, Opened]]
    """What a user calls each adapter -> its name inside the model, and what was read of it."""


def load_together(
    adapters: Sequence[str | Path],
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    offline: bool = False,
    **options: Any,
) -> Together:
    """Open adapter folders (or hub ids) that were trained for one backbone; it is loaded once.

    They are called by their folders, with as many of the folders above as tell them apart. Each is used with
    those that were trained together with it, and without the others. Raises ConfigError for adapters of two
    backbones, or of one that was opened in two ways.
    """
    if len(adapters) == 1:
        opened = load(adapters[0], weights, device, offline, **options)
        (name,) = names_of(adapters)
        return Together(opened.backbone, opened.model, {name: (NAME, opened)})
    saved = {
        name: read(locate(a, offline=offline)) for name, a in zip(names_of(adapters), adapters, strict=True)
    }
    first = next(iter(saved.values()))
    for name, other in saved.items():
        if other.base_trained:
            raise ConfigError(
                f"adapter: {name} is a fully fine-tuned encoder, which others cannot share; give it alone"
            )
        _same_backbone(first, other, set(options))
    backbone = backbone_of(first, weights, offline, **options)
    groups = {name: with_companions(one, offline) for name, one in saved.items()}
    every = {one.folder.resolve(): one for group in groups.values() for one in group.values()}
    inside = _inside(every, {one.folder.resolve(): name for name, one in saved.items()})
    for one in every.values():
        one.check_backbone(backbone.card())
    model = joined(backbone, {inside[folder]: one for folder, one in every.items()}, offline)
    parts = {}
    for name, one in saved.items():
        runs = tuple(inside[other.folder.resolve()] for other in groups[name].values())
        opened = Opened(backbone, model, one, heads_of(one, backbone), runs, groups[name])
        parts[name] = inside[one.folder.resolve()], on(device, opened)
    return Together(backbone, model, parts)


def _inside(folders: Iterable[Path], called: Mapping[Path, str]) -> dict[Path, str]:
    """A name inside the model for each folder: what the user calls it, without dots."""
    plain = {folder: called.get(folder, NAME).replace(".", "_") for folder in folders}
    names = list(plain.values())
    return {
        folder: name if names.count(name) == 1 else f"{NAME}_{i}"
        for i, (folder, name) in enumerate(plain.items())
    }


def names_of(adapters: Sequence[str | Path]) -> list[str]:
    """The last parts of the paths, as many as make them different; raises ConfigError for one given twice."""
    paths = [Path(os.path.abspath(adapter)).parts for adapter in adapters]
    if len(set(paths)) < len(paths):
        twice = next(a for i, a in enumerate(adapters) if paths[i] in paths[:i])
        raise ConfigError(f"adapter: {twice} is given twice")

    def tail(path: tuple[str, ...]) -> str:
        others = [other for other in paths if other != path]
        for length in range(1, len(path) + 1):
            if all(other[-length:] != path[-length:] for other in others):
                return "/".join(path[-length:])
        return "/".join(path)

    return [tail(path) for path in paths]


def _same_backbone(one: Saved, other: Saved, replaced: set[str]) -> None:
    """Raise ConfigError unless both were trained on one model, opened in one way."""
    a, b = one.backbone, other.backbone
    theirs = [
        {key: value for key, value in card.options.items() if key not in replaced and value is not None}
        for card in (a, b)
    ]
    weights = (a.sha256, b.sha256) if a.sha256 and b.sha256 else (a.id, b.id)
    if (a.name, a.dim, a.layers) == (b.name, b.dim, b.layers) and len(set(weights)) == 1:
        if theirs[0] == theirs[1]:
            return
        differ = sorted(
            k for k in theirs[0].keys() | theirs[1].keys() if theirs[0].get(k) != theirs[1].get(k)
        )
        why = "; ".join(f"{k} is {theirs[0].get(k)!r} and {theirs[1].get(k)!r}" for k in differ)
    else:
        why = f"{a} and {b}" + (", with other weights" if str(a) == str(b) else "")
    raise ConfigError(
        f"{one.folder} and {other.folder} cannot share one backbone: {why}. Run them one after the other"
    )
