"""Laws of company and of place: beside others, under a mixer, under a constraint, and on another device."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import ClassVar
from unittest.mock import patch

import torch
from torch import Tensor, nn

from speech_peft.compose.names import fill as fill_parts
from speech_peft.compose.names import ordinary
from speech_peft.core.adapter import Mixer
from speech_peft.core.context import Context
from speech_peft.core.keyed.keyed import Keyed
from speech_peft.core.method import Method, Mixing, Peer
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import NESTING, Kind, Site
from speech_peft.core.wrapping import Wrapping
from speech_peft.methods.affine import Affine
from speech_peft.registry import METHODS

from .laws import NAME, Case, Law, distance, loss_of, refusal_of, same, scramble

STEPS = 3


def starts(case: Case) -> str | None:
    """A fresh adapter learns, by its own procedure: a few steps lower the loss and move what is heard."""
    model = case.model().train()
    parameters, life = model.trainable(NAME), case.method.lifecycle(model, NAME)
    if life is not None:  # what comes before step 0 may change what is heard, for the better or not
        life.on_fit_start(lambda batch: loss_of(case.run(model)), [None])
        life.before_eval()
    before, loss = _heard(case, model)
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    for step in range(STEPS):
        if life is not None:
            life.before_forward(step)
        optimiser.zero_grad()
        loss_of(case.run(model)).backward()
        if life is not None:
            life.after_backward()
        optimiser.step()
        if life is not None:
            life.after_step(step)
    if life is not None:
        life.before_eval()
    after, lower = _heard(case, model)
    assert distance(after, before) > 1e-5, "after three steps from its start it does what it did"
    assert lower < loss, f"three steps led from a loss of {loss:.6f} to {lower:.6f}"
    return None


def _heard(case: Case, model: AdaptedModel) -> tuple[tuple[Tensor, ...], float]:
    """What evaluation hears, and its loss."""
    model.eval()
    with torch.no_grad():
        outputs = case.run(model)
    model.train()
    return outputs, float(loss_of(outputs))


def stays(case: Case) -> str | None:
    """Frozen beside one that trains, an adapter keeps its numbers, gets no gradient and is in eval mode."""
    model = case.with_methods({NAME: case.method, "beside": Affine(sites=("*.ffn.down",))})
    scramble(model)
    parameters = model.trainable("beside")
    model.train()
    parts = [model.adapters[NAME], *([model.shared[NAME]] if NAME in model.shared else [])]
    before = [{key: value.clone() for key, value in _tensors(part).items()} for part in parts]
    optimiser = torch.optim.AdamW(parameters, lr=0.1)
    loss_of(case.run(model)).backward()
    optimiser.step()
    for part, old in zip(parts, before, strict=True):
        moved = [key for key, value in _tensors(part).items() if not _equal(value, old[key])]
        assert not moved, f"frozen, it changed: {moved}"
        assert all(p.grad is None and not p.requires_grad for p in part.parameters()), (
            "it takes part in training"
        )
        awake = [key for key, module in part.named_modules() if module.training]
        assert not awake, f"frozen, it is in training mode: {awake}"
    return None


def _equal(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())  # NaN where a buffer holds nothing


def _tensors(part: nn.Module) -> dict[str, Tensor]:
    return {**dict(part.named_parameters()), **dict(part.named_buffers())}


def _twice(case: Case, **more: Method) -> AdaptedModel:
    """Two adapters of the method at the same sites, trained to the same numbers, and others."""
    model = case.with_methods({NAME: case.method, "twin": case.method, **more})
    scramble(model)
    for group in (model.adapters, model.shared):
        if NAME in group:
            group["twin"].load_state_dict(group[NAME].state_dict())
    return model


def two(case: Case) -> str | None:
    """Two at one site both work and learn, and neither hears of the other; or they are refused by name."""
    model = _twice(case)
    with model.using(NAME):
        one = case.run(model)
    assert distance(one, case.run(case.trained())) < 1e-5, "an idle neighbour changes what it does"
    with model.using("twin"):
        assert same(case.run(model), one), "of two with the same numbers, the second does something else"
    model.trainable(NAME, "twin")
    if refusal := refusal_of(lambda: case.run(model)):
        assert any(site.name in refusal for site in model.sites[NAME]), f"it names no site: {refusal}"
        return refusal
    both = case.run(model)
    assert distance(both, one) > 1e-6, "two do what one does"
    assert [y.shape for y in both] == [y.shape for y in one]
    loss_of(both).backward()
    for name in (NAME, "twin"):
        learns = [p.grad is not None and bool(p.grad.any()) for p in model.parameters_of(name)]
        assert any(learns), f"beside the other, {name} gets no gradient"
    return None


class _Mean(Mixer):
    """The mean of what enters and of what leaves."""

    over = (NAME, "twin")

    def before(self, x: Tensor, inputs: list[Tensor], ctx: Context) -> Tensor:
        return torch.stack(inputs).mean(0)

    def forward(self, x: Tensor, y: Tensor, outputs: list[Tensor], ctx: Context) -> Tensor:
        return torch.stack(outputs).mean(0)


class _Mixed(Mixing):
    """A mean where both sit that it mixes."""

    name: ClassVar[str] = "mean"
    kinds: ClassVar[frozenset[Kind]] = frozenset(NESTING)
    over: tuple[str, ...] = (NAME, "twin")

    def build_over(
        self, site: Site, target: nn.Module, shared: nn.Module | None, peers: Mapping[str, Peer]
    ) -> Mixer:
        return _Mean()


@torch.no_grad()
def mixed(case: Case) -> str | None:
    """The mean of two of the same numbers is the one; what cannot be mixed is refused by name."""
    if refusal := refusal_of(lambda: _twice(case, mean=_Mixed())):
        assert any(site.name in refusal for site in case.sites), f"it names no site: {refusal}"
        return refusal
    model = _twice(case, mean=_Mixed())
    with model.using(NAME):
        one = case.run(model)
    with model.using("mean"):
        off = distance(case.run(model), one)
    assert off < 1e-5, f"the mean of two equal adapters is off the one by {off:.1e}"
    return None


@torch.no_grad()
def materialised(case: Case) -> str | None:
    """Where it differs by task, it is for each task the ordinary adapter that is made of it."""
    if not isinstance(case.method, Keyed):
        return "it is the same for every task and language"
    model, method = case.trained(), case.method
    with_names = {method.names[1]: torch.ones(case.batch, dtype=torch.long), None: None}
    for who, ids in with_names.items():
        with model.context(Context(**{method.key: ids})):
            wanted = case.call(model)
        alone = AdaptedModel(copy.deepcopy(case.base), case.sites, {NAME: method.ordinary()}).eval()
        fill_parts(alone, NAME, ordinary(model, NAME, who))
        off = distance(case.call(alone), wanted)
        assert off < 1e-5, f"for {who} the ordinary adapter is off by {off:.1e}"
    return None


def wrapped(case: Case) -> str | None:
    """Every wrapping method takes it as its host, and then runs and learns; or it is refused by name."""
    if isinstance(case.method, Wrapping):
        return "it wraps a method itself"
    if type(case.method).lifecycle is not Method.lifecycle:
        return "it has a procedure of its own"
    reasons = []
    for name in METHODS.names():
        if issubclass(METHODS[name], Wrapping):
            host = {"method": case.method.name, **case.method.model_dump()}
            given = {"experts": 2, "share": "none"} if name == "mosa" else {}
            around = replace(case, method=METHODS[name].model_validate({"of": host, **given}))
            if refusal := refusal_of(around.model):
                assert any(site.name in refusal for site in case.sites), (
                    f"{name} of it names no site: {refusal}"
                )
                reasons.append(refusal)
                continue
            model = around.trained().train()
            outputs = around.run(model)
            assert all(y.isfinite().all() for y in outputs), f"{name} of it is not finite"
            loss_of(outputs).backward()
            learns = [p.grad is not None and bool(p.grad.any()) for p in model.trainable(NAME)]
            assert any(learns), f"{name} of it does not learn"
    return "; ".join(reasons) or None


def device(case: Case) -> str | None:
    """On a device without numbers it is built, runs and learns: nothing of it is somewhere else."""
    there = replace(case, base=copy.deepcopy(case.base).to("meta"))
    # Nobody looks at a number who need not, as in a graph; and there is no autocast.
    with patch("torch.compiler.is_compiling", return_value=True), patch("torch.autocast", _none):
        try:
            there.call(there.base)
        except (NotImplementedError, RuntimeError) as error:
            return f"the frozen model needs numbers: {error}"
        model = there.model().train()
        own = {**_tensors(model.adapters), **_tensors(model.shared)}
        elsewhere = [key for key, value in own.items() if not value.is_meta]
        assert not elsewhere, f"not on the site's device: {elsewhere}"
        loss_of(there.run(model)).backward()
        with torch.no_grad():
            there.run(model.eval())
    return None


def _none(device_type: str, **settings: object) -> AbstractContextManager[None]:
    return nullcontext()


LAWS: dict[str, Law] = {
    "starts": starts,
    "stays": stays,
    "two": two,
    "mixed": mixed,
    "materialised": materialised,
    "wrapped": wrapped,
    "device": device,
}
