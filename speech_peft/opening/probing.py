"""What a few clips say about a model: their features, how they sound to it, and what the inner units of
adapters make of them."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..audio import io, manifest
from ..backbones.base import Backbone, Features
from ..compose.alignment import units_of
from ..compose.cards.card import Sound
from ..compose.joining import Activations
from ..core.adapter import NotMergeable
from ..core.model import AdaptedModel
from ..core.passage.routing import counted
from ..errors import ConfigError, SpeechPeftError

SECONDS = 30.0
"""Of a clip, at most."""
_TOGETHER = 4  # clips in a batch
_DIRECTIONS = 8  # along which a card says how its clips differ
_CLIPS_EACH = 4  # of a card for each: fewer differ along any line, and others along another
FRAMES = 10_000
"""Of speech by which units are told apart; more tell no more."""


def features_of(
    backbone: Backbone, clips: str | Path, most: int = 200, device: torch.device | None = None
) -> Iterator[Features]:
    """Batches of the recordings of a manifest or folder, the first `most` of them in an even spread.

    Raises ConfigError where none of them can be read.
    """
    rows = manifest.listed(clips)
    chosen = [rows[int(i)] for i in torch.linspace(0, len(rows) - 1, min(most, len(rows))).round()]
    heard, problem = 0, ""
    longest = min(SECONDS, backbone.max_seconds or SECONDS)
    batch: list[Tensor] = []
    for i, row in enumerate(chosen):
        try:
            length = min(longest, row.duration or longest)
            samples = io.load(row.audio, backbone.sample_rate, row.start, length).samples
            batch.append(torch.from_numpy(samples))
            heard += 1
        except SpeechPeftError as error:
            problem = str(error)
        if batch and (len(batch) == _TOGETHER or i == len(chosen) - 1):
            yield _prepared(backbone, batch, device)
            batch = []
    if not heard:
        raise ConfigError(f"{clips}: none of its recordings can be heard: {problem}")


@torch.no_grad()
def sound_of(backbone: Backbone, features: Features) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b t d"]]:
    """How clips sound to a backbone, with the adapters that are active, and its last states as they are.

    What the first block and the last give are beside each other, each on the mean over the frames of a clip:
    the first tells channels apart best, the last what is said and in what language.
    """
    first, *_, last = backbone.encode_layers(features)
    own = backbone.mask_of(features, last)[..., None].to(torch.float32)
    pooled = [(states.float() * own).sum(1) / own.sum(1).clamp_min(1.0) for states in (first, last)]
    return torch.cat(pooled, 1), last


def sound_on(backbone: Backbone, clips: str | Path) -> Sound:
    """How the recordings of a manifest or folder sound: the mean, and how and along what they differ."""
    every = torch.cat([sound_of(backbone, features)[0] for features in features_of(backbone, clips)]).double()
    mean, variance = every.mean(0), every.var(0, unbiased=False)
    _, size, along = torch.linalg.svd((every - mean) / len(every) ** 0.5, full_matrices=False)
    directions = (size[:, None] * along)[: min(_DIRECTIONS, len(every) // _CLIPS_EACH)]
    return Sound(
        mean=_few(mean),
        variance=_few(variance),
        clips=len(every),
        directions=tuple(map(_few, directions)),
    )


def _few(numbers: Tensor) -> tuple[float, ...]:
    """To five digits: a card is read by people too."""
    return tuple(float(f"{number:.5g}") for number in numbers.tolist())


def _prepared(backbone: Backbone, clips: Sequence[Tensor], device: torch.device | None) -> Features:
    lengths = torch.tensor([len(clip) for clip in clips])
    audio = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    return backbone.prepare(audio.to(device), lengths.to(device))


@torch.no_grad()
def activations(
    backbone: Backbone, model: AdaptedModel, names: Sequence[str], clips: str | Path, frames: int = FRAMES
) -> Activations:
    """By site, what the inner units of each adapter, running alone, give on the same frames that hold sound.

    Sites in a decoder are left out: no text is read. Raises ConfigError for an adapter without such units.
    """
    batches = list(features_of(backbone, clips))
    found: dict[str, list[Tensor]] = {}
    for name in names:
        taken = {site.name: _Taken(model) for site in model.sites[name]}
        hooks = [_listened(model, name, site, taken[site.name]) for site in model.sites[name]]
        try:
            with model.using(name):
                for features in batches:
                    backbone.encode(features)
        finally:
            for hook in hooks:
                hook.remove()
        for site, own in taken.items():
            if own.frames:
                found.setdefault(site, []).append(own.units(frames))
    return {site: each for site, each in found.items() if len(each) == len(names)}


class _Taken:
    """What the units of one adapter at one site gave, frame by frame."""

    def __init__(self, model: AdaptedModel):
        self.model = model
        self.frames: list[Tensor] = []

    def note(self, activation: Any, layer: nn.Module, given: Any, output: Float[Tensor, "b t r"]) -> None:
        own, units = counted(output, self.model.current.here), activation(output)
        self.frames.append(units.flatten(0, 1) if own is None else units[own])

    def units(self, most: int) -> Float[Tensor, "r m"]:
        every = torch.cat(self.frames)
        return every[:: -(-len(every) // most)].mT


def _listened(model: AdaptedModel, name: str, site: Any, taken: _Taken) -> Any:
    try:
        units = units_of(model.at(name, site))
    except NotMergeable as refused:
        raise ConfigError(
            f"{name} is a {model.methods[name].name}, and {refused}. Take --how average"
        ) from None
    return units.layer.register_forward_hook(partial(taken.note, units.activation))
