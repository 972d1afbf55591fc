"""The frames that adapters choose: noted in one run, and given to another whose rounding would turn them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from torch import Tensor

from speech_peft.core.adapter import Adapter
from speech_peft.core.context import Context
from speech_peft.core.model import AdaptedModel
from speech_peft.core.selection import Selection

Chosen = dict[str, list[Selection | None]]
"""By the names of adapter and site, in the order of its passes."""
Select = Callable[[Tensor, Context], Selection | None]


def _choosing(model: AdaptedModel) -> dict[str, Adapter]:
    parts = {f"{name} {s.name}": model.at(name, s) for name, sites in model.sites.items() for s in sites}
    return {key: part for key, part in parts.items() if isinstance(part, Adapter) and part.selects_frames}


@contextmanager
def choices_of(model: AdaptedModel) -> Iterator[Chosen]:
    """What each adapter selects, from here on."""
    chosen: Chosen = {}
    with _selecting(model, lambda key, own: partial(_note, own, chosen.setdefault(key, []))):
        yield chosen


def _note(own: Select, seen: list[Selection | None], x: Tensor, ctx: Context) -> Selection | None:
    seen.append(own(x, ctx))
    return seen[-1]


@contextmanager
def chooses_as(model: AdaptedModel, chosen: Chosen) -> Iterator[list[float]]:
    """Let each adapter select what it did then, its own weights having the gradients.

    Gives, pass by pass, the share of these frames that it would have selected itself.
    """
    agreed: list[float] = []
    with _selecting(model, lambda key, own: partial(_as_then, own, iter(chosen[key]), agreed)):
        yield agreed


def _as_then(
    own: Select, given: Iterator[Selection | None], agreed: list[float], x: Tensor, ctx: Context
) -> Selection | None:
    then, now = next(given), own(x, ctx)
    if then is None or now is None:
        assert then is now
        return None
    everywhere = now.weights.new_zeros(x.shape[:2]).scatter(1, now.frames, now.weights)
    mine, there = everywhere.gather(1, then.frames), then.weights > 0
    agreed.append(float((mine[there] > 0).float().mean()))
    return replace(then, weights=then.weights.detach() + (mine - mine.detach()))


@contextmanager
def _selecting(model: AdaptedModel, instead: Callable[[str, Select], Select]) -> Iterator[None]:
    """Replace how each adapter selects, until the end."""
    parts = _choosing(model)
    for key, part in parts.items():
        part.__dict__["select"] = instead(key, part.select)
    try:
        yield
    finally:
        for part in parts.values():
            del part.__dict__["select"]
