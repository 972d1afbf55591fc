"""Which adapters a recording is heard with, told by what the frozen model alone makes of it."""

import math
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..backbones.base import Features
from ..backbones.whisper import Whisper
from ..compose.packs import Packs
from ..decoders.words.whisper_text import detect_language
from ..errors import ConfigError
from ..opening.loading import Opened
from ..opening.together import Together, load_together
from .result import Choice

By = Literal["file", "segment"]
TELLING_SECONDS = 10.0
"""Of speech by which a language is told: what is encoded for that alone is encoded again to be written."""


@runtime_checkable
class Chooser(Protocol):
    """Chooses by states of telling windows."""

    whole: bool
    """Whether once for a recording, by the window that tells most of it; else for every window."""
    pad_to: int
    """Samples of sound and silence that the frozen model alone is used to hear, where the backbone was opened
    for fewer: rows without an adapter get so many. 0: as it was opened."""
    seconds: float
    """Of the beginning of a telling window that it listens to."""

    def listen(self, features: Features) -> tuple[Tensor, list[Choice]]:
        """The states that the frozen model alone makes of a batch, and what is chosen for each row."""
        ...

    def known(self, language: str) -> Choice | None:
        """For a recording whose language somebody said; None: that is not enough, it has to be heard."""
        ...

    def about(self) -> dict[str, Any]:
        """What it chooses among, for whoever wants to know what made a text."""
        ...


class PackChooser:
    """The pack of the language that is heard; the frozen model alone where that is not sure enough."""

    def __init__(self, packs: Packs, together: Together, by: By = "file"):
        if not isinstance(together.backbone, Whisper) or not together.backbone.generation.is_multilingual:
            raise ConfigError(
                f"packs: {together.backbone.origin.id} hears no languages apart; packs are for a Whisper of "
                "several languages"
            )
        self.packs, self.together, self.whole = packs, together, by == "file"
        self.backbone = together.backbone
        # A Whisper that no adapter helps writes poorly of less than 30 s; a language it tells as well.
        full = round((self.backbone.max_seconds or 0.0) * self.backbone.sample_rate)
        self.pad_to = full if self.backbone.context == "fit" else 0
        again = self.pad_to and any(in_encoder(opened) for _, opened in together.parts.values())
        self.seconds = TELLING_SECONDS if again else math.inf

    def listen(self, features: Features) -> tuple[Tensor, list[Choice]]:
        states = self.backbone.encode(features).states
        return states, [self._sure(shares) for shares in detect_language(self.backbone, states)]

    def known(self, language: str) -> Choice:
        """For a language that somebody said."""
        return self._of(language, f"language {language}, as was asked")

    def about(self) -> dict[str, Any]:
        each = {name: one.digests for name, (_, one) in self.together.parts.items() if one.saved is not None}
        about = {"packs": {name: of["adapter_sha256"] for name, of in each.items()}}
        several = {name: of["adapters_sha256"] for name, of in each.items() if "adapters_sha256" in of}
        return about | ({"packs_together": several} if several else {})

    def _sure(self, shares: dict[str, float]) -> Choice:
        own = {code: share for code, share in shares.items() if self.packs.pack_of(code)}
        if self.packs.settings.closed and own:
            shares = {code: share / sum(own.values()) for code, share in own.items()}
        language = max(shares, key=shares.__getitem__)
        heard = f"language {language} ({shares[language]:.2f})"
        if shares[language] < self.packs.least:
            return Choice({}, f"{heard}, less sure than {self.packs.least:g}", language, encodes=False)
        return self._of(language, heard)

    def _of(self, language: str, heard: str) -> Choice:
        pack = self.packs.pack_of(language)
        if pack is None:
            return Choice({}, f"{heard}, and no pack is for it", language, encodes=False)
        name, opened = self.together.parts[pack]
        return Choice({pack: 1.0}, heard, language, opened.runs or (name,), in_encoder(opened))


def in_encoder(opened: Opened) -> bool:
    """Whether what runs for an adapter changes what the encoder gives."""
    sites = [site for name in opened.runs for site in opened.model.sites[name]]
    return any(opened.backbone.block_of(site) is not None for site in sites)


def with_packs(
    folder: str | Path,
    by: By,
    weights: str | Path | None,
    device: str | torch.device,
    offline: bool,
    **options: Any,
) -> tuple[Opened, PackChooser]:
    """The model that a folder of packs is for, and what chooses among them."""
    packs = Packs.read(folder)
    together = load_together(list(packs.folders.values()), weights, device, offline, **options)
    renamed = dict(zip(packs.folders, together.parts.values(), strict=True))
    for name, (_, one) in renamed.items():
        without_heads(name, one)
    together = Together(together.backbone, together.model, renamed)
    return Opened(together.backbone, together.model), PackChooser(packs, together, by)


def without_heads(name: str, opened: Opened) -> None:
    """Raise ConfigError for an adapter with a head: rows of a batch share what reads them."""
    if opened.heads:
        raise ConfigError(
            f"{name} has a head of its own ({', '.join(opened.heads)}), and what is chosen by the sound is "
            "read by the model's own decoder. Use it alone, with --adapter"
        )
