"""Each law catches a method that breaks it, and only it: a suite that cannot fail proves nothing.

The planted methods are one sound method with one fault each. They sit on the toy encoder's query projections.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speech_peft.core.adapter import Adapter
from speech_peft.core.context import Context
from speech_peft.core.keyed.keyed import Keyed, KeyedAdapter
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.passage.recompute import Recompute
from speech_peft.core.site import Kind, Site
from tests import toy

from .every_law import LAWS, SLOW
from .laws import Case, Change, registered


class Sound(Adapter):
    """y' = y + U D x; obeys every law, and its subclasses all but one."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__()
        self.down = nn.Parameter(torch.randn(4, site.dim_in) / 4)
        self.up = nn.Parameter(torch.zeros(site.dim_out, 4))

    def change(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up)

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        return y + self.change(x)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.up @ self.down, bias


class Unmerged(Sound):
    """The same, for what is no change of a weight."""

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return Adapter.merged(self, weight, bias)


class StartsElsewhere(Sound):
    """Not zero at the start, and does not say so."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        nn.init.normal_(self.up)


class ThawsTheBase(Sound):
    """Lets the frozen weight train."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        target.requires_grad_(True)


class WritesIntoTheBase(Sound):
    """Keeps statistics in the frozen layer while it trains."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        self.target = (target,)  # in a tuple, which hides it from state_dict

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        if self.training and y.requires_grad:
            with torch.no_grad():
                self.target[0].weight.data.mul_(0.9)
        return super().forward(x, y, ctx)


class LivesInTheBase(Sound):
    """Registers a tensor of its own in the frozen module."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        target.register_buffer("visits", torch.zeros(()))


class DeadWeight(Sound):
    """Has a parameter that nothing uses."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        self.unused = nn.Parameter(torch.zeros(3))


class Deaf(Sound):
    """Never changes anything."""

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        return y + 0 * self.change(x)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight, bias


class Forgetful(Sound):
    """Draws a random gain at construction, and no file holds it."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        self.gain = float(torch.rand(()))

    def change(self, x: Tensor) -> Tensor:
        return self.gain * super().change(x)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.gain * self.up @ self.down, bias


class MergesAHalf(Sound):
    """Leaves a factor out of the merged weight."""

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + 0.5 * self.up @ self.down, bias


class Clings(Sound):
    """Computes in a closure, which a deepcopy shares with its original."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        self.closure: Callable[[Tensor], Tensor] = lambda x: Sound.change(self, x)

    def change(self, x: Tensor) -> Tensor:
        return self.closure(x)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        change = self.closure(torch.eye(weight.shape[1])).T
        return weight + change, bias


class BreaksTheGraph(Sound):
    """Decides in Python by the value of a tensor."""

    def change(self, x: Tensor) -> Tensor:
        return super().change(x) if x.abs().sum().item() >= 0 else x


class OwnDice(Sound):
    """Has noise from a generator that recomputation does not rewind."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        self.dice = _Dice()

    def change(self, x: Tensor) -> Tensor:
        return super().change(x) * self.dice.roll() if self.training else super().change(x)


class _Dice:
    """Counts its own rolls; a copy starts again."""

    def __init__(self):
        self.rolls = 0

    def roll(self) -> float:
        self.rolls += 1
        return 1 / self.rolls


class BorrowsAWeight(Sound):
    """Multiplies its own precision by the frozen weight's."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        self.target = (target,)

    def change(self, x: Tensor) -> Tensor:
        return super().change(F.linear(x, self.target[0].weight))

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.up @ self.down @ weight, bias


class Pools(Sound):
    """Gives one frame where there were many, and addition broadcasts it without a word."""

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        return super().forward(x, y, ctx).mean(1, keepdim=True)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return Adapter.merged(self, weight, bias)


class BothZero(Sound):
    """Starts where no gradient leads away from."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        nn.init.zeros_(self.down)


class OnlyEval(Sound):
    """Is at work in evaluation alone."""

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        return y + (0 if self.training else 1) * self.change(x)


class WalksUphill(Sound):
    """Has its gradient the wrong way round."""

    def change(self, x: Tensor) -> Tensor:
        change = super().change(x)
        return 2 * change.detach() - change


class Peeks(Unmerged):
    """Reads the frame behind each, in a decoder too, and does not declare it."""

    def change(self, x: Tensor) -> Tensor:
        return super().change(torch.cat((x[:, 1:], x[:, :1]), 1))


class Gossips(Unmerged):
    """Tells every clip what the others are like."""

    def change(self, x: Tensor) -> Tensor:
        return super().change(x - x.mean(0))


class Queues(Unmerged):
    """Does more to a clip the further back it stands in the batch."""

    def change(self, x: Tensor) -> Tensor:
        return super().change(x) * torch.arange(1, len(x) + 1, device=x.device).view(-1, 1, 1)


class LosesItsTask(Unmerged, KeyedAdapter):
    """Has a gain for each task, and leaves it out of what it is for one."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        self.gain = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        gain = self.gain.mean() if ctx.task is None else self.gain[ctx.task][:, None, None]
        return y + gain * self.change(x)

    def ordinary(self, id: int) -> dict[str, Tensor]:
        return {"down": self.down, "up": self.up}


class CountsPadding(Unmerged):
    """Divides by the frames of the batch, those behind a clip's end included."""

    def change(self, x: Tensor) -> Tensor:
        return super().change(x) / x.shape[1]


class Restless(Sound):
    """Counts what it hears wherever gradients flow, frozen or not."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        self.register_buffer("heard", torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        if torch.is_grad_enabled():
            self.heard += x.shape[1]
        return super().forward(x, y, ctx)


class NeverRests(Sound):
    """Stays in training mode."""

    def train(self, mode: bool = True) -> "NeverRests":
        return super().train(True)


class Selfish(Sound):
    """Takes its place for itself: of two at one site, only the one that came last is at work."""

    def __init__(self, site: Site, target: nn.Module):
        super().__init__(site, target)
        self.place = target.__dict__.setdefault("_place", [])
        self.place[:] = [id(self.down)]
        self.number = id(self.down)

    def change(self, x: Tensor) -> Tensor:
        return super().change(x) * float(self.place[0] == self.number)


class WritesOverY(Sound):
    """Adds to y in place, which others at the site were given too."""

    def forward(self, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        return y.add_(self.change(x))


class LooksInside(Sound):
    """Reads its matrix where torch keeps parameters, and a constraint leaves none."""

    def change(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self._parameters["down"]), self.up)


class HalfOnGpu(Sound):
    """Makes a constant on the CPU in every pass."""

    def change(self, x: Tensor) -> Tensor:
        return super().change(x) + torch.zeros(1, 1, self.up.shape[0])


class MadeElsewhereInTraining(Sound):
    """Makes it in training alone."""

    def change(self, x: Tensor) -> Tensor:
        return super().change(x) + (torch.zeros(1, 1, self.up.shape[0]) if self.training else 0)


class Planted(Method):
    """The configuration around a planted adapter."""

    name: ClassVar[str] = "planted"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear"})
    adapter: ClassVar[type[Adapter]] = Sound

    # value and output, since the softmax hides what is the same for every key
    sites: tuple[str, ...] = ("*.attn.[vo]",)

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return self.adapter(site, target)


class SitsAnywhere(Planted):
    """Skips the check of where it may sit."""

    def check(self, adapter: str, site: Site) -> None:
        return None


class ReadsInSilence(Planted):
    """Needs the task and declares it, but not so that a port would ask for it."""

    reads: ClassVar[frozenset[str]] = frozenset({"task"})


class ByTask(Planted, Keyed):
    names: tuple[str, ...] = ("one", "two")

    def ordinary(self) -> Method:
        return planted(Sound)(sites=self.sites)


class SaysItIsNoIdentity(Planted):
    sites: tuple[str, ...] = ("*.attn.o",)

    @property
    def identity_at_init(self) -> bool:
        return False


def planted(adapter: type[Adapter], method: type[Planted] = Planted) -> type[Planted]:
    return type(adapter.__name__, (method,), {"adapter": adapter, "__module__": __name__})


# What follows from a fault by logic: a base that changes between two runs cannot be recomputed, say.
FOLLOWS = {
    "WritesIntoTheBase": {"recompute", "starts"},
    "Deaf": {"copy", "starts", "two", "wrapped"},
    "OnlyEval": {"wrapped"},
    "Forgetful": {"two", "mixed"},
    "BreaksTheGraph": {"device"},
    "OwnDice": {"padding"},
    "Pools": {"causal", "padding"},
    "Peeks": {"padding"},
    "Selfish": {"mixed"},
}
PLANTS: list[tuple[str, type[Planted]]] = [
    ("identity", planted(StartsElsewhere)),
    ("frozen", planted(ThawsTheBase)),
    ("frozen", planted(WritesIntoTheBase)),
    ("stock_keys", planted(LivesInTheBase)),
    ("learns", planted(DeadWeight)),
    ("learns", planted(Deaf)),
    ("roundtrip", planted(Forgetful)),
    ("merge", planted(MergesAHalf)),
    ("copy", planted(Clings)),
    ("compile", planted(BreaksTheGraph)),
    ("recompute", planted(OwnDice)),
    ("dtype", planted(BorrowsAWeight)),
    ("shapes", planted(Pools, SaysItIsNoIdentity)),
    ("refusal", SitsAnywhere),
    ("starts", planted(BothZero)),
    ("starts", planted(OnlyEval)),
    ("starts", planted(WalksUphill)),
    ("causal", planted(Peeks)),
    ("rows", planted(Gossips)),
    ("permuted", planted(Queues)),
    ("padding", planted(CountsPadding)),
    ("stays", planted(Restless)),
    ("stays", planted(NeverRests)),
    ("two", planted(Selfish)),
    ("mixed", planted(WritesOverY)),
    ("materialised", planted(LosesItsTask, ByTask)),
    ("wrapped", planted(LooksInside)),
    ("device", planted(HalfOnGpu)),
    ("device", planted(MadeElsewhereInTraining)),
]


def toy_case(method: Method) -> Case:
    """On a toy decoder, in which no frame sees later ones: nor, therefore, what is behind a clip's end."""
    base = toy.toy()
    for block in base.layers:
        block.attn.causal = True

    speech = toy.speech(frames=7)  # here, as no generator is made inside what is compiled

    def call(model: nn.Module, change: Change = "") -> tuple[Tensor, ...]:
        base: toy.Toy = getattr(model, "base", model)
        states = speech[:, : 7 if change == "padding" else 5].clone()
        if change == "later":
            states[:, -1] *= -1
        if change == "neighbour":
            states[1] = states[1].flip(0)
        if change == "swapped":
            states = states.flip(0)
        return (base(states.to(base.layers[0].up.weight)),)

    return Case(
        method=method,
        base=base,
        sites=[replace(site, causal=True) for site in toy.sites()],
        card=toy.CARD,
        call=call,
        batch=2,
        dim=toy.DIM,
        padded={0: 5, 1: 5},
        causal=0,
    )


def obeys(law: str, method: type[Method]) -> bool:
    """Whether the planted method passes; what a fault makes raise counts as caught."""
    with registered(method):
        try:
            LAWS[law](toy_case(method()))
        except (AssertionError, RuntimeError, LookupError):
            return False
    return True


@pytest.mark.parametrize(
    "law", [pytest.param(law, marks=pytest.mark.slow if law in SLOW else ()) for law in LAWS]
)
def test_a_sound_method_obeys(law):
    assert obeys(law, planted(Sound))


@pytest.mark.parametrize(
    ("law", "method"),
    [
        pytest.param(
            law, method, id=f"{law}-{method.__name__}", marks=pytest.mark.slow if law in SLOW else ()
        )
        for law, method in PLANTS
    ],
)
def test_the_law_catches_what_breaks_it(law, method):
    assert not obeys(law, method)


@pytest.mark.parametrize(
    ("broken", "method"), [pytest.param(law, method, id=method.__name__) for law, method in PLANTS]
)
def test_and_the_other_laws_pass_it(broken, method):
    others = set(LAWS) - SLOW - {broken} - FOLLOWS.get(method.__name__, set())
    assert {law for law in others if not obeys(law, method)} == set()


def test_every_law_has_a_method_that_breaks_it():
    assert {law for law, _ in PLANTS} == set(LAWS)


def test_recompute_catches_a_second_run_with_the_wrong_adapters(monkeypatch):
    def forgetful(self: Recompute, *args, **kwargs):
        from torch.utils.checkpoint import checkpoint

        return checkpoint(self.forward, *args, use_reentrant=False, **kwargs)

    monkeypatch.setattr(Recompute, "__call__", forgetful)
    with pytest.raises(Exception, match=r"recompute|different number of tensors"):
        LAWS["recompute"](toy_case(planted(Sound)()))


def test_frozen_catches_a_base_left_in_training_mode(monkeypatch):
    monkeypatch.setattr(AdaptedModel, "train", nn.Module.train)
    assert not obeys("frozen", planted(Sound))


def test_refusal_catches_a_context_field_nobody_asks_for(monkeypatch):
    from speech_peft.core.passage.port import Port

    assert obeys("refusal", ReadsInSilence)
    monkeypatch.setattr(Port, "_check_context", lambda self, name, ctx: None)
    assert not obeys("refusal", ReadsInSilence)
