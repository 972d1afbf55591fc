"""Laws of clips: what a method must not let into a clip, or into a token."""

from dataclasses import replace

import torch
from torch import Tensor

from .laws import NAME, Case, Law, refusal_of

CLOSE = 1e-4
"""Of what is the same sum in another order."""
VIEWS = "its rows are views of one recording, and hear each other"


@torch.no_grad()
def causal(case: Case) -> str | None:
    """Where tokens are written one after the other, what comes later changes nothing before it."""
    if case.causal is None:
        return "nothing here is written one token after the other"
    placed = case
    if not any(site.causal for site in case.model().sites[NAME]):  # nothing forbids to put it there
        sites = tuple(s.name for s in case.sites if s.causal and s.kind in case.method.kinds)
        placed = replace(case, method=case.method.model_copy(update={"sites": sites, "top": None}))
        if not sites or refusal_of(placed.model):
            return "it sits at no causal site"
    model = placed.trained()
    now, later = (placed.run(model, change=change)[case.causal] for change in ("", "later"))  # type: ignore[arg-type]
    assert not torch.equal(now[:, -1], later[:, -1]), "the case changes no later token"
    off = float((now[:, :-1] - later[:, :-1]).abs().max() / now.abs().max())
    assert off < 1e-5, f"a later token changes those before it by {off:.1e}"
    return None


@torch.no_grad()
def rows(case: Case) -> str | None:
    """In evaluation, what becomes of a clip does not depend on the clips beside it."""
    if "views" in case.method.hears:
        return VIEWS
    model = case.trained()
    for now, other in zip(case.run(model), case.run(model, change="neighbour"), strict=True):
        assert not torch.equal(now[1], other[1]), "the case changes no neighbour"
        off = float((now[0] - other[0]).abs().max() / now.abs().max())
        assert off < CLOSE, f"a clip changes by {off:.1e} with its neighbour"
    return None


@torch.no_grad()
def permuted(case: Case) -> str | None:
    """Clips in another order, and what is said of them, come out in that order and else the same."""
    model = case.trained()
    for now, swapped in zip(case.run(model), case.run(model, change="swapped"), strict=True):
        assert not torch.equal(now, swapped), "the case changes no order"
        off = float((now - swapped.flip(0)).abs().max() / now.abs().max())
        assert off < CLOSE, f"a clip changes by {off:.1e} with its place in the batch"
    return None


@torch.no_grad()
def padding(case: Case) -> str | None:
    """What stands behind a clip's end does not count, neither in evaluation nor in training statistics."""
    if "views" in case.method.hears:
        return VIEWS
    still = {"dropout": 0.0} if hasattr(case.method, "dropout") else {}  # whose numbers follow the shape
    model = replace(case, method=case.method.model_copy(update=still)).trained()
    with model.using():
        bare, padded = case.run(model)[0], case.run(model, change="padding")[0]
    if bare.shape == padded.shape:
        return "the frozen model hears every clip in a frame of one size"
    if _off(case, bare, padded) > CLOSE:
        return "the frozen model attends to padding itself"
    # Statistics of a batch are those of its clips: they must be the same for training to be.
    for mode in (False, True)[: 1 + (len(case.padded) == case.batch)]:
        model.train(mode)
        off = _off(case, case.run(model)[0], case.run(model, change="padding")[0])
        assert off < CLOSE, f"a clip changes by {off:.1e} with what is behind its end"
    return None


def _off(case: Case, now: Tensor, padded: Tensor) -> float:
    own = [(now[clip, :frames] - padded[clip, :frames]).abs().max() for clip, frames in case.padded.items()]
    return float(torch.stack(own).max() / now.abs().max())


LAWS: dict[str, Law] = {"causal": causal, "rows": rows, "permuted": permuted, "padding": padding}
