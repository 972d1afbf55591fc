"""Adapters that sit in a waveform decoder: what it knows stays frozen, and they alone learn.

    task:
      stage: finetune
      decoder: {from: runs/map/decoder, adapters: {bands: {method: knitting, width: 32}}}

They are part of the decoder: its files hold them, and whoever opens it has them. Adapters of the encoder are
another matter, and may run beside them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.site import Site
from ..errors import ConfigError
from ..registry import METHODS


def adapted(
    name: str, decoder: nn.Module, sites: Sequence[Site], adapters: Mapping[str, Mapping[str, Any]]
) -> AdaptedModel:
    """The decoder of that name, frozen, with these adapters at its sites.

    Raises ConfigError where it has no sites, and for adapters that it cannot carry.
    """
    if not isinstance(adapters, Mapping):
        raise ConfigError(f"decoder.adapters: expected {{NAME: {{method: ...}}}}, got {adapters!r:.60}")
    if not sites:
        raise ConfigError(f"decoder {name}: has no sites for adapters; mask, map and istft have")
    model = AdaptedModel(decoder, sites, {one: method_of(one, fields) for one, fields in adapters.items()})
    for one, method in model.methods.items():
        if method.reads or method.lifecycle(model, one) is not None:
            why = f"reads {', '.join(sorted(method.reads))}" if method.reads else "has a procedure of its own"
            model.detach()
            raise ConfigError(f"decoder.adapters.{one}: {method.name} {why}, which no decoder gives it")
    model.trainable(*model.methods)
    return model


def method_of(name: str, fields: Mapping[str, Any]) -> Method:
    """One adapter as a recipe writes it: `{method: knitting, width: 32}`."""
    if not (isinstance(name, str) and name.isidentifier()):
        raise ConfigError(f"decoder.adapters.{name}: a name is letters, digits and _")
    if not isinstance(fields, Mapping) or "method" not in fields:
        raise ConfigError(f"decoder.adapters.{name}: expected {{method: NAME, ...}}, got {fields!r}")
    rest = {key: value for key, value in fields.items() if key != "method"}
    try:
        return METHODS[fields["method"]](**rest)
    except ConfigError as error:
        raise ConfigError(f"decoder.adapters.{name}: {error}") from None


def config(model: AdaptedModel) -> dict[str, dict[str, Any]]:
    """What makes the same adapters at the same sites again."""
    return {
        name: {
            "method": method.name,
            **method.model_dump(mode="json"),
            "sites": [site.name for site in model.sites[name]],
            "top": None,
        }
        for name, method in model.methods.items()
    }
