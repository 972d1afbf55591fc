"""A recording for adapters to listen to: through the frozen encoder once, and without its silence."""

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..audio import io
from ..backbones.base import Backbone
from ..backbones.frames import below
from ..core.listening.noting import noting
from ..core.listening.reference import Reference
from ..core.model import AdaptedModel
from ..core.saved.hub import locate
from ..core.saved.save import read
from ..core.site import Site
from ..errors import ConfigError

SECONDS = 30.0
"""Of a file, no more than the beginning is listened to."""
_FLOOR, _RANGE = -60.0, 40.0
"""dB: what is softer than this, or so far below the loudest frame, is silence."""


def listens_at(model: AdaptedModel) -> list[Site]:
    """The sites where an adapter of the model listens to a reference, in model order."""
    names = [name for name, method in model.methods.items() if "reference" in method.hears]
    places = {site for name in names for site in model.sites[name]}
    return [site for site in model.table if site in places]


@torch.no_grad()
def enrolled(
    model: AdaptedModel, backbone: Backbone, audio: Float[Tensor, "n s"], lengths: Int[Tensor, " n"]
) -> Reference:
    """What the adapters of a model hear of these recordings, each for the row of a batch at its place.

    A recording in which nothing is heard is as if there were none.
    """
    with torch.autocast(audio.device.type, enabled=False):
        features = backbone.prepare(audio, lengths)
    with model.using(), noting(model.base, listens_at(model)) as states:
        mask = backbone.encode(features).mask
    loud = _loud(audio, lengths, round(backbone.sample_rate / backbone.frame_rate))
    frames = min(mask.shape[1], loud.shape[1])
    mask[:, :frames] &= loud[:, :frames]
    mask[:, frames:] = False
    inside = next((x.shape[1] for x in states.values()), frames)
    if inside != mask.shape[1]:  # several states for each moment, as AST has: what is silence cannot be told
        mask = loud.any(1, keepdim=True).expand(-1, inside)
    return Reference(states, mask, torch.arange(len(audio), device=audio.device))


def enrolled_file(model: AdaptedModel, backbone: Backbone, path: str | Path | None) -> Reference | None:
    """The same of one recording for every row of every batch; None where there is none, and nobody listens.

    Raises ConfigError where an adapter listens to nothing, or nobody to what is given, and AudioError for
    what is no sound.
    """
    sites = listens_at(model)
    if path is None:
        if sites:
            raise ConfigError(
                f"{sites[0].name}: the adapter listens to a recording of the speaker who is wanted, and "
                "there is none. Give --speaker-reference FILE; an empty recording leaves the adapter without "
                "effect"
            )
        return None
    if not sites:
        raise ConfigError(
            f"speaker reference {path}: no adapter here listens to one; the recipe "
            "asr/whisper_target_speaker trains such"
        )
    seconds = min(SECONDS, backbone.max_seconds or SECONDS)
    samples = torch.from_numpy(io.load(path, backbone.sample_rate, 0.0, seconds).samples)
    device = next(model.base.parameters()).device
    found = enrolled(model, backbone, samples[None].to(device), torch.tensor([len(samples)], device=device))
    return Reference(found.states, found.mask)


def hears(adapter: str | Path, offline: bool = False) -> bool:
    """Whether a saved adapter listens to a reference."""
    return "reference" in read(locate(adapter, offline=offline)).method.hears


def check_enrolled(model: AdaptedModel, given: bool) -> None:
    """Raise ConfigError where a recipe gives clips of a speaker to nobody, or none to who listens to them."""
    sites = listens_at(model)
    if given and not sites:
        raise ConfigError("data.enrol: no adapter listens to a reference; leave it out")
    if sites and not given:
        raise ConfigError(f"{sites[0].name}: the adapter listens to a reference; give data.enrol")


def _loud(audio: Float[Tensor, "n s"], lengths: Int[Tensor, " n"], hop: int) -> Bool[Tensor, "n t"]:
    """True where a stretch of so many samples is no silence."""
    own = audio.float() * below(lengths, audio.shape[1])
    stretches = max(1, -(-own.shape[1] // hop))  # where nobody of a batch has other clips there is no sample
    padded = torch.nn.functional.pad(own, (0, stretches * hop - own.shape[1]))
    level = 10 * padded.unflatten(1, (-1, hop)).square().mean(-1).clamp(min=1e-12).log10()
    return (level > _FLOOR) & (level > level.amax(1, keepdim=True) - _RANGE)
