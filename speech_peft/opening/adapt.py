"""New adapters on a stock model, in memory or by the address of its weights.

model = adapt(whisper, {"tel": Lora(rank=8, sites=["*.attn.[qv]"])})
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..backbones.in_memory import look_at, open_weights
from ..core.method import Method
from ..core.model import AdaptedModel
from ..errors import ConfigError
from .adapted import Adapted


def adapt(
    model: nn.Module | str | Path,
    adapters: Mapping[str, Method],
    *,
    device: str | torch.device | None = None,
    revision: str | None = None,
    offline: bool = False,
    **options: Any,
) -> Adapted:
    """Attach new adapters, each under a name of yours, to a stock model in memory or to weights by address.

    In memory: transformers' Whisper, AST, Wav2Vec2-BERT, Wav2Vec2-Conformer, Parakeet or Gemma 3n's audio
    tower, alone or inside a model with a head; it is frozen, put into eval mode and hooked, and `detach()`
    gives it back. An address is a folder, a hub id, or `pkg:PACKAGE/path`; then `options` are those of the
    backbone (`context="fit"`, `layer=8`). `device` moves the model; by default it stays.

    Raises ConfigError for a model of another kind or one that carries adapters already, and where a method
    must not sit at the sites it was given.

    >>> model = adapt(whisper, {"tel": Lora(rank=8, sites=["*.attn.[qv]"])})        # doctest: +SKIP
    >>> model.generate(input_features=mel)                                          # doctest: +SKIP
    """
    _check(adapters)
    if isinstance(model, AdaptedModel):
        names = ", ".join(map(repr, model.methods)) or "none"
        raise ConfigError(
            f"model: this is a model with adapters already ({names}); name them all in one adapt(...), or "
            "adapt what its detach() gives back"
        )
    if isinstance(model, nn.Module):
        if given := [*options, *(["revision"] if revision else [])]:
            raise ConfigError(f"{given[0]}: is for weights by address, and a model in memory was given")
        found = look_at(model)
        adapted = Adapted(model, found.sites, adapters, card=found.card)
    elif isinstance(model, str | Path):
        backbone = open_weights(model, revision, offline, **options)
        adapted = Adapted(
            backbone.module, backbone.sites(), adapters, card=backbone.card(), backbone=backbone
        )
    else:
        raise ConfigError(
            f"model: expected a transformers model or the address of weights, got {type(model).__name__}"
        )
    return adapted if device is None else adapted.to(device)


def _check(adapters: Any) -> None:
    if not isinstance(adapters, Mapping) or not adapters:
        raise ConfigError(
            f"adapters: expected names and methods, {{'tel': Lora(rank=8)}}, got {type(adapters).__name__}"
        )
    for name, method in adapters.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigError(f"adapters: {name!r}: a name is letters, digits and _, since it names a folder")
        if not isinstance(method, Method):
            raise ConfigError(
                f"adapters.{name}: expected a method such as Lora(rank=8), got {type(method).__name__}"
            )
