"""Several microphones: whether adapters of a model listen to them, and which of them recorded anything."""

from dataclasses import replace

from jaxtyping import Int
from torch import Tensor

from ..backbones.base import Features
from ..core.model import AdaptedModel
from ..errors import ConfigError


def hears_views(model: AdaptedModel) -> bool:
    """Whether an adapter that runs listens to what other microphones heard."""
    return any("views" in model.methods[name].hears for name in model.active)


def check_views(model: AdaptedModel, given: bool) -> None:
    """Raise ConfigError where a recipe gives several microphones to nobody, or one to who hears all."""
    listens = [name for name, method in model.methods.items() if "views" in method.hears]
    if given and not listens:
        raise ConfigError("data.channels: no adapter listens to other microphones; leave it out")
    if listens and not given:
        raise ConfigError(f"adapters.{listens[0]}: it listens to other microphones; give data.channels=views")


def recorded(features: Features, lengths: Int[Tensor, " b"]) -> Features:
    """The features, where rows of no samples hold no frame of sound: nobody listens to them.

    Encoders take what is too short for one frame for so long; here it is a microphone that is not there.
    """
    there = (lengths > 0).to(features.lengths.device)
    return replace(features, lengths=features.lengths * there)
