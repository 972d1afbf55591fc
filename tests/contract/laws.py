"""The laws every method obeys on every backbone, as functions of one case.

A law raises AssertionError where it is broken. It returns None where it holds, and says why in words where it
does not apply. `test_methods.py` runs all laws over all methods; `test_laws_can_fail.py` plants methods that
break them. Laws of clips and of company are in files of their own; `every_law.py` has them all.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from speech_peft.compose.merge import merge
from speech_peft.core.adapter import NotMergeable
from speech_peft.core.context import Context
from speech_peft.core.listening.reference import Reference
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.core.saved.save import BackboneCard
from speech_peft.core.site import Site, resolve
from speech_peft.errors import ConfigError

from .choices import choices_of, chooses_as

NAME = "adapter"
Change = Literal["", "later", "neighbour", "padding", "swapped"]
"""What an input has otherwise: tokens of a decoder that come later, another clip of the batch, what is behind
the clips' ends, or the order of its clips."""


class Call(Protocol):
    def __call__(self, model: nn.Module, change: Change = "") -> tuple[Tensor, ...]: ...


@dataclass(frozen=True)
class Case:
    """One method on one frozen model."""

    method: Method
    base: nn.Module
    """Never attached to: every use takes a copy."""
    sites: Sequence[Site]
    card: BackboneCard
    call: Call
    """Runs a model on the case's own input and returns every output that adapters can move."""
    batch: int
    dim: int
    padded: Mapping[int, int] = field(default_factory=dict)
    """Clips that are the same with other padding, and how many frames of the first output are their own."""
    causal: int | None = None
    """Which of the outputs is made of one token after the other."""

    @property
    def others(self) -> dict[str, Method]:
        """What the method is over, where it mixes others."""
        return self.method.company()

    def model(self, seed: int = 0) -> AdaptedModel:
        return self.with_methods({NAME: self.method}, seed)

    def with_methods(self, methods: Mapping[str, Method], seed: int = 0) -> AdaptedModel:
        """These adapters, fresh, and what the method is over, with the same numbers each time."""
        torch.manual_seed(seed)
        others = self.others
        model = AdaptedModel(copy.deepcopy(self.base), self.sites, {**others, **methods}).eval()
        for i, name in enumerate(others):
            fill(model, name, 1000 + i)
        return model

    def trained(self, seed: int = 0) -> AdaptedModel:
        """A model whose adapters hold random numbers, as if they had been trained."""
        model = self.model(seed)
        scramble(model, seed)
        return model

    def context(self, seed: int = 0) -> Context:
        """All the side information a method of this case can ask for; ids are of two names."""
        random = torch.Generator().manual_seed(seed)
        every = {
            "task": torch.randint(0, 2, (self.batch,), generator=random),
            "language": torch.randint(0, 2, (self.batch,), generator=random),
            "memory": torch.randn(self.batch, 3, self.dim, generator=random),
            "timestep": torch.rand(self.batch, generator=random),
            "reference": self._reference(random),
            "views": 2,
            "moments": torch.randint(0, 2, (self.batch, 20), generator=random) * 2.0 - 1,
        }
        return Context(**{field: value for field, value in every.items() if field in self.told})

    @property
    def told(self) -> set[str]:
        """What the method can be told of the clips of a pass."""
        return {*self.method.reads, *self.method.ids, *self.method.hears}

    def _reference(self, random: torch.Generator) -> Reference:
        """Two other recordings, the second with padding, heard by the rows crosswise."""
        places = [site.name for site in self.sites if site.kind == "attn"]
        mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
        states = {name: torch.randn(2, 5, self.dim, generator=random) for name in places}
        return Reference(states, mask, torch.tensor([1, 0]))

    def run(self, model: AdaptedModel, seed: int = 0, change: Change = "") -> tuple[Tensor, ...]:
        device = next(model.base.parameters()).device
        ctx = self.context(seed)
        if change == "swapped":
            ctx = ctx.picked(torch.arange(self.batch).flip(0))
        asked = {field: getattr(ctx, field) for field in self.told}
        moved = {f: value.to(device) for f, value in asked.items() if isinstance(value, Tensor | Reference)}
        with model.context(replace(ctx, **moved)):
            return self.call(model, change)


@torch.no_grad()
def fill(model: AdaptedModel, name: str, seed: int) -> None:
    """Let an adapter hold these random numbers and no others."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters_of(name):
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=random))


@torch.no_grad()
def scramble(model: AdaptedModel, seed: int = 0) -> None:
    """Random numbers of the size of a trained adapter's, on top of what is there."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters_of(NAME):
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=random).to(parameter.dtype))


def loss_of(outputs: Sequence[Tensor]) -> Tensor:
    """A number in which every output has a part, with random weights so that no norm hides a change."""
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(y.shape, generator=random).to(y.device) for y in outputs]
    return torch.stack([(y.float() * w).mean() for y, w in zip(outputs, weights, strict=True)]).sum()


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Bit for bit."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest value."""
    return max(
        float((x - y).detach().abs().max() / y.detach().abs().max()) for x, y in zip(a, b, strict=True)
    )


@torch.no_grad()
def identity(case: Case) -> str | None:
    """A fresh adapter changes nothing, and with none active the model is the stock one."""
    model = case.model()
    with model.using():
        bare = case.run(model)
    assert same(bare, case.call(copy.deepcopy(case.base))), "using() is not the stock model"
    if not case.method.identity_at_init:
        return "the method does not start as the identity"
    assert same(case.run(model), bare), "a fresh adapter changes the output"
    return None


def frozen(case: Case) -> str | None:
    """A training step leaves every parameter and buffer of the base as it was, and gives it no gradient."""
    model = case.trained().train()
    before = {key: value.clone() for key, value in model.base.state_dict().items()}
    optimiser = torch.optim.AdamW(model.trainable(NAME), lr=0.1)
    loss_of(case.run(model)).backward()
    optimiser.step()
    changed = [key for key, value in model.base.state_dict().items() if not torch.equal(value, before[key])]
    assert not changed, f"training changed the base: {changed}"
    touched = [key for key, p in model.base.named_parameters() if p.grad is not None or p.requires_grad]
    assert not touched, f"the base takes part in training: {touched}"
    awake = [name or "the base" for name, module in model.base.named_modules() if module.training]
    assert not awake, f"in training mode, so dropout and statistics are not frozen: {awake}"
    return None


def stock_keys(case: Case) -> str | None:
    """Attaching renames, adds and removes no key, and a stock checkpoint still loads."""
    model = case.model()
    stock = case.base.state_dict()
    assert list(model.base.state_dict()) == list(stock), "attaching changed the keys of the base"
    model.base.load_state_dict(stock)
    assert type(model.base) is type(case.base), "attaching changed the class of the base"
    return None


def learns(case: Case) -> str | None:
    """Random parameters move the output, and each of them gets a gradient."""
    model = case.trained()
    with torch.no_grad(), model.using():
        bare = case.run(model)
    parameters = model.trainable(NAME)
    assert parameters, "there is nothing to train"
    outputs = case.run(model)
    assert distance(outputs, bare) > 1e-6, "random parameters do not move the output"
    loss_of(outputs).backward()
    named = {id(p): key for key, p in model.named_parameters()}
    idle = [named[id(p)] for p in parameters if p.grad is None or not p.grad.any()]
    assert not idle, f"no gradient reaches {idle}"
    return None


@torch.no_grad()
def roundtrip(case: Case) -> str | None:
    """Saved and loaded on a fresh base, the outputs are equal; another base is refused by name."""
    model = case.trained(seed=0)
    with tempfile.TemporaryDirectory() as root:
        save.write(Path(root) / "saved", model, NAME, case.card)
        saved = save.read(Path(root) / "saved")
        assert saved.method == case.method, f"the configuration came back as {saved.method}"
        fresh = replace(case, method=saved.method).model(seed=1)
        saved.load_into(fresh, NAME, case.card)
        assert same(case.run(fresh), case.run(model)), "a loaded adapter differs from the one that was saved"
        other = case.card.model_copy(update={"name": "another", "dim": case.card.dim + 1})
        message = refusal_of(lambda: saved.load_into(fresh, NAME, other))
        assert message, "an adapter of another model was accepted"
        assert {case.card.name, "another"} <= set(message.split()), f"the refusal names not both: {message}"
    return None


@torch.no_grad()
def merges(case: Case) -> str | None:
    """Where merging is offered, a stock model with merged weights does what base and adapters did."""
    model = case.trained()
    before = case.run(model)
    merged, refusal = None, ""
    try:
        merged = merge(model)
    except NotMergeable as refused:
        refusal = str(refused)
    assert same(case.run(model), before), "merging changed the adapted model"
    if merged is None:
        assert any(site.name in refusal for site in model.sites[NAME]), (
            f"the refusal names no site: {refusal}"
        )
        return refusal
    assert type(merged) is type(case.base)
    hooks = [
        h for m in merged.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())
    ]
    assert len(hooks) == len(_hooks(case.base)), "the merged copy is no stock module: it has our hooks"
    off = distance(case.call(merged), before)
    assert off < 1e-4, f"merged and adapted differ by {off:.1e}"
    return None


def _hooks(base: nn.Module) -> list[object]:
    return [h for m in base.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]


@torch.no_grad()
def copies(case: Case) -> str | None:
    """A deepcopy and its original do not reach each other."""
    model = case.trained(seed=0)
    original = case.run(model)
    twin = copy.deepcopy(model)
    assert same(case.run(twin), original), "a copy differs from its original"
    scramble(model, seed=1)
    model.activate()
    assert same(case.run(twin), original), "changing the original changed the copy"
    model.activate(NAME)
    changed = case.run(model)
    assert not same(changed, original), "the original runs the parameters of the copy"
    scramble(twin, seed=2)
    twin.activate()
    assert same(case.run(model), changed), "changing the copy changed the original"
    return None


def compiles(case: Case) -> str | None:
    """One graph with no break equals eager, also after switching the active adapters."""
    torch._dynamo.reset()
    model = case.trained()
    context = case.context()
    # capture alone, no code generation: a graph break shows as well, in a tenth of the time
    compiled = torch.compile(lambda: case.call(model), fullgraph=True, backend="eager")
    for active in ((NAME,), (), (NAME,)):
        with model.using(*active), model.context(context):
            off = distance(compiled(), case.call(model))
        assert off < 1e-5, f"compiled and eager differ by {off:.1e} with {active or 'no adapter'} active"
    return None


def recompute(case: Case) -> str | None:
    """Gradient checkpointing changes no gradient, whatever other forward ran before the backward pass."""
    gradients = []
    for checkpointed in (False, True):
        model = case.trained().train()
        if checkpointed:
            model.recompute()
        parameters = model.trainable(NAME)
        torch.manual_seed(0)
        loss = loss_of(case.run(model, seed=0))
        with torch.no_grad(), model.using():  # a teacher
            case.run(model, seed=1)
        loss_of(case.run(model, seed=2))  # the next batch
        model.activate()
        loss.backward()
        gradients.append([p.grad.clone() for p in parameters if p.grad is not None])
        copy.deepcopy(model)  # nothing of the graph stays behind
    assert len(gradients[0]) == len(gradients[1])
    off = max(float((a - b).abs().max()) for a, b in zip(*gradients, strict=True))
    size = max(float(a.abs().max()) for a in gradients[0])
    assert off <= 1e-5 * size, f"recomputed gradients differ by {off:.1e}, of {size:.1e}"
    return None


def dtypes(case: Case) -> str | None:
    """On a bfloat16 base a float32 adapter computes in float32, trains, and the base's precision stays."""
    model = case.trained()
    model.base.to(torch.bfloat16)
    exact = case.trained()
    with choices_of(exact) as chosen:
        reference = case.run(exact)
    for cast in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        with cast:
            with model.using():
                bare = case.run(model)
            # Rounding turns a choice between frames of nearly equal score, and these frames with it. So the
            # choice is given, and what is made of it held to the tolerance of every other method.
            with chooses_as(model, chosen) as agreed:
                outputs = case.run(model)
        assert [y.dtype for y in outputs] == [y.dtype for y in bare], (
            "an adapter changed the base's precision"
        )
        assert all(share > 0.75 for share in agreed), f"of the frames chosen in float32 it chooses {agreed}"
        off = distance([y.float() for y in outputs], reference)
        assert off < 0.15, f"bfloat16 and float32 differ by {off:.1e}"
        parameters = model.trainable(NAME)
        loss_of(outputs).backward()
        assert all(p.dtype == torch.float32 for p in parameters), "the adapter lost its precision"
        assert all(p.grad.isfinite().all() for p in parameters if p.grad is not None)
    return None


@torch.no_grad()
def shapes(case: Case) -> str | None:
    """At every site the adapted output has the shape of the frozen one."""
    model = case.trained()
    outputs = case.run(model)
    with model.using():
        bare = case.run(model)
    assert [y.shape for y in outputs] == [y.shape for y in bare], "an adapter changed the shape of the output"
    if not case.method.keeps_length:
        return "the method changes the number of frames inside, as it declares"
    if not case.method.keeps_batch:
        return "the method runs a batch several times over inside, as it declares"
    adapted = _site_shapes(case, model)
    with model.using():
        assert adapted == _site_shapes(case, model), "an adapter changed the shape of its site's output"
    return None


def _site_shapes(case: Case, model: AdaptedModel) -> dict[str, list[torch.Size]]:
    shapes: dict[str, list[torch.Size]] = {site.name: [] for site in model.sites[NAME]}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, y: Tensor | tuple[Tensor, ...]) -> None:
            shapes[name].append((y[0] if isinstance(y, tuple) else y).shape)

        return hook

    hooks = [resolve(model.base, s.exit).register_forward_hook(note(s.name)) for s in model.sites[NAME]]
    case.run(model)
    for hook in hooks:
        hook.remove()
    assert all(shapes.values()), f"never called: {[name for name, seen in shapes.items() if not seen]}"
    return shapes


def refuses(case: Case) -> str | None:
    """Wrong kinds, missing context fields, changed lengths and looks ahead raise with the site's name."""
    for kind in {site.kind for site in case.sites} - case.method.kinds:
        site = next(site for site in case.sites if site.kind == kind)
        _refused_at(site, case, "a site of a kind it does not declare")
    if not case.method.keeps_length:
        for site in [s for s in case.sites if s.fixed_length and s.kind in case.method.kinds][:1]:
            _refused_at(site, case, "a site where frames must stay")
    if case.method.sees_neighbours:
        for site in [s for s in case.sites if s.causal and s.kind in case.method.kinds][:1]:
            _refused_at(site, case, "a site where later frames are not there yet")
    if case.method.reads:
        model = case.model()
        message = refusal_of(lambda: case.call(model))
        assert message, "ran without the context it reads"
        assert any(site.name in message for site in model.sites[NAME]), (
            f"the refusal names no site: {message}"
        )
    return None


def refused(case: Case) -> str | None:
    """Why the method sits nowhere on this model, naming a site; None where it sits."""
    message = refusal_of(case.model)
    assert not message or any(site.name in message for site in case.sites), (
        f"the refusal names no site: {message}"
    )
    return message or None


def _refused_at(site: Site, case: Case, what: str) -> None:
    placed = replace(case, method=case.method.model_copy(update={"sites": (site.name,)}))
    message = refusal_of(placed.model)
    assert site.name in message, f"{what}, {site.name}, was not refused by name: {message or 'accepted'}"


def refusal_of(action: Callable[[], object]) -> str:
    """The message of the ConfigError that `action` raises; empty when it raises none."""
    try:
        action()
    except ConfigError as refused:
        return str(refused)
    return ""


Law = Callable[[Case], str | None]
LAWS: dict[str, Law] = {
    "identity": identity,
    "frozen": frozen,
    "stock_keys": stock_keys,
    "learns": learns,
    "roundtrip": roundtrip,
    "merge": merges,
    "copy": copies,
    "compile": compiles,
    "recompute": recompute,
    "dtype": dtypes,
    "shapes": shapes,
    "refusal": refuses,
}
SLOW = {"compile"}


@contextmanager
def registered(method: type[Method]) -> Iterator[None]:
    """Let a planted method be found by name, for as long as a test needs it."""
    from speech_peft.registry import METHODS

    METHODS.register(method.name)(method)
    try:
        yield
    finally:
        del METHODS._things[method.name]
