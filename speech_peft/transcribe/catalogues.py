"""Adapters of a catalogue chosen for each recording: `--adapter auto:FOLDER`."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbones.base import Features
from ..backbones.families import open_backbone
from ..backbones.whisper import Whisper
from ..compose.cards.catalogue import Catalogue, Entry
from ..compose.cards.select import Request, Selection, select
from ..compose.join import join
from ..compose.joining import Joining
from ..compose.stated import states_lora
from ..decoders.words.whisper_text import detect_language
from ..errors import ConfigError
from ..opening.loading import Opened
from ..opening.probing import sound_of
from ..opening.together import Together, load_together
from .choosing import in_encoder
from .result import Choice

_AUTO = "auto:"


def catalogue_of(adapter: str | Path | None) -> Path | None:
    """The folder that `auto:FOLDER` names; None for any other adapter."""
    text = str(adapter or "")
    return Path(text.removeprefix(_AUTO)) if text.startswith(_AUTO) else None


class CatalogueChooser:
    """What suits a recording best, by how it sounds to the frozen model and by words that were given."""

    whole, pad_to, seconds = True, 0, math.inf

    def __init__(self, catalogue: Catalogue, together: Together, words: str = ""):
        self.catalogue, self.together, self.words = catalogue, together, words
        self._mixed: dict[tuple[tuple[str, float], ...], tuple[str, ...]] = {}

    def listen(self, features: Features) -> tuple[Tensor, list[Choice]]:
        sounds, states = sound_of(self.together.backbone, features)
        languages = self._languages(states)
        picked = [select(self.catalogue, Request(self.words, sound.cpu().numpy())) for sound in sounds]
        return states, [self._choice(p, code) for p, code in zip(picked, languages, strict=True)]

    def known(self, language: str) -> None:
        """A language alone does not say which adapter."""

    def about(self) -> dict[str, Any]:
        return {
            "catalogue": {entry.name: entry.saved.digest for entry in self.catalogue.entries},
            "request": self.words,
        }

    def _languages(self, states: Tensor) -> list[str | None]:
        backbone = self.together.backbone
        if not isinstance(backbone, Whisper) or not backbone.generation.is_multilingual:
            return [None] * len(states)
        return [max(shares, key=shares.__getitem__) for shares in detect_language(backbone, states)]

    def _choice(self, picked: Selection, language: str | None) -> Choice:
        factors, why = picked.factors, picked.why
        if any(factor != 1 for factor in factors.values()) and not self._can_mix(factors):
            factors = {next(iter(factors)): 1.0}
            why += " (as it was trained: only LoRAs are weighed and added up)"
        encodes = any(in_encoder(self.together.parts[name][1]) for name in factors)
        return Choice(factors, why, language, self._runs(factors), encodes)

    def _can_mix(self, factors: Mapping[str, float]) -> bool:
        return all(states_lora(self.together.model, self.together.parts[name][0]) for name in factors)

    def _runs(self, factors: Mapping[str, float]) -> tuple[str, ...]:
        """What runs for them: an adapter itself, or their weighed sum, made when it is first wanted."""
        if len(factors) < 2 and all(factor == 1 for factor in factors.values()):
            return tuple(run for name in factors for run in self.together.parts[name][1].runs)
        key = tuple(sorted((name, round(factor, 4)) for name, factor in factors.items()))
        if key not in self._mixed:
            model, inside = self.together.model, [self.together.parts[name][0] for name, _ in key]
            self._mixed[key] = (f"{'_'.join(inside)}_{len(self._mixed)}",)
            summed = join(model, inside, Joining("cat", tuple(f for _, f in key)), least=1)
            summed.added(model, self._mixed[key][0])
        return self._mixed[key]


def with_catalogue(
    folder: Path,
    words: str,
    weights: str | Path | None,
    device: str | torch.device,
    offline: bool,
    **options: Any,
) -> tuple[Opened, CatalogueChooser]:
    """The model that the adapters of a folder are for, and what chooses among them."""
    catalogue = Catalogue.read(folder)
    fits = [entry for entry in usable(catalogue, weights, offline) if not entry.saved.head_config]
    if not fits:
        raise ConfigError(
            f"{folder}: none of its {len(catalogue.entries)} adapters can be chosen for "
            f"{weights or 'its base'}: they are of other weights, or have heads or companions of their own"
        )
    together = load_together([entry.saved.folder for entry in fits], weights, device, offline, **options)
    together = replace(
        together, parts={e.name: p for e, p in zip(fits, together.parts.values(), strict=True)}
    )
    together.model.activate()
    chooser = CatalogueChooser(replace(catalogue, entries=fits), together, words)
    return Opened(together.backbone, together.model), chooser


def usable(catalogue: Catalogue, weights: str | Path | None, offline: bool) -> list[Entry]:
    """Those that can share one frozen model: of its very weights, opened in the way that most of them were.

    Raises ConfigError where they are of several models and none is named.
    """
    bases = catalogue.bases
    if weights is None and len(bases) > 1:
        raise ConfigError(
            f"{catalogue.folder} has adapters of {len(bases)} models: "
            f"{', '.join(str(card) for card in bases.values())}. Say with --weights which one is meant"
        )
    first = next(iter(bases.values()))
    card = first if weights is None else open_backbone(first.name, weights, offline=offline).card()
    fits = [
        entry
        for entry in catalogue.of_base(card).entries
        if not entry.saved.base_trained and not entry.saved.manifest.together
    ]
    ways = [json.dumps(entry.saved.backbone.options, sort_keys=True) for entry in fits]
    return [entry for entry, way in zip(fits, ways, strict=True) if way == max(ways, key=ways.count)]
