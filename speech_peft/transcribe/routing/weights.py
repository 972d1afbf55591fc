"""What a fusion chooses while a recording is heard, at the encoder's sites."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...core.adapter import Mixer
from ...core.model import AdaptedModel
from ...core.passage.routing import Note, Notes
from .routed import STEP_SECONDS, Routing


def mixers_of(model: AdaptedModel) -> dict[str, Mixer]:
    """The mixers at work in the encoder that note what they choose, by their sites; of one name at most."""
    for name in model.active:
        parts = {site.name: model.at(name, site) for site in model.sites[name] if not site.causal}
        found = {
            site: part for site, part in parts.items() if isinstance(getattr(part, "notes", None), Notes)
        }
        if found:
            return cast("dict[str, Mixer]", found)
    return {}


@contextmanager
def noted(mixers: Mapping[str, Mixer]) -> Iterator[dict[str, Note]]:
    """What each chooses in the one pass that is run inside; filled when it ends."""
    found: dict[str, Note] = {}
    for mixer in mixers.values():
        _notes(mixer).listen()
    try:
        yield found
    finally:
        for site, mixer in mixers.items():
            if taken := _notes(mixer).end():
                found[site] = taken[-1]


def by_steps(note: Note, row: int, seconds: float, frame_rate: float) -> Float[Tensor, "step adapter"]:
    """The mean weights of one clip in each step, of the frames that are its own."""
    own = max(1, min(note.weights.shape[1], round(seconds * frame_rate)))
    frames = note.weights[row, :own].float()
    each = max(1, round(STEP_SECONDS * frame_rate))
    return torch.stack([part.mean(0) for part in frames.split(each)]).cpu()


def routing_of(
    mixers: Mapping[str, Mixer], windows: Mapping[float, Float[Tensor, "site step adapter"]]
) -> Routing | None:
    """Of a recording, whose windows are given by where they start; None where nothing was noted."""
    if not windows or not mixers:
        return None
    over = next(iter(mixers.values())).over
    every = torch.cat([windows[start] for start in sorted(windows)], 1)
    names = (*over, "itself")[: every.shape[2]]
    starts = [start + i * STEP_SECONDS for start in sorted(windows) for i in range(windows[start].shape[1])]
    return Routing(names, tuple(mixers), tuple(starts), every.numpy())


def _notes(mixer: nn.Module) -> Notes:
    return cast(Notes, mixer.notes)
