"""Mixers: the same path to an adapter as without one, and what cannot be mixed is refused by name."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from speech_peft.core import describe
from speech_peft.core.adapter import Adapter, Mixer
from speech_peft.core.context import Context
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import NESTING, Kind, Site
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.coda import Coda
from speech_peft.methods.lora import Lora
from speech_peft.methods.prompt import Prompt
from tests import toy

from .test_port import Task
from .test_streams import Streams


class Outputs(Mixer):
    """The mean of outputs alone."""

    def __init__(self, over: tuple[str, ...]):
        super().__init__()
        self.over = over

    def forward(self, x: Tensor, y: Tensor, outputs: list[Tensor], ctx: Context) -> Tensor:
        return torch.stack(outputs).mean(0)


class Mean(Outputs):
    """The mean of inputs too."""

    def before(self, x: Tensor, inputs: list[Tensor], ctx: Context) -> Tensor:
        return torch.stack(inputs).mean(0)


class Mixes(Method):
    name: ClassVar[str] = "mixes"
    kinds: ClassVar[frozenset[Kind]] = frozenset(NESTING)
    over: tuple[str, ...] = ("a", "b")
    outputs_alone: bool = False

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Mixer:
        return (Outputs if self.outputs_alone else Mean)(self.over)


def model(method: Method, *others: Method, **mix: object) -> AdaptedModel:
    """Adapters a and b, of the same numbers where they are of one method, and a mixer over them."""
    second = others[0] if others else method
    made = AdaptedModel(
        toy.toy(), toy.sites(), {"a": method, "b": second, "mix": Mixes(**{"sites": method.sites, **mix})}
    )
    if not others:
        made.adapters["b"].load_state_dict(made.adapters["a"].state_dict())
    return made


@pytest.mark.parametrize("form", ["parallel", "series", "series_input"])
@torch.no_grad()
def test_the_mean_of_two_equal_adapters_is_the_adapter(form):
    mixed = model(Bottleneck(width=4, form=form, zero_up=False, sites=("*.ffn", "*.attn.v")))
    with mixed.using("a"):
        alone = mixed(toy.speech())
    with mixed.using("mix"):
        torch.testing.assert_close(mixed(toy.speech()), alone)
    with mixed.using():
        assert not torch.allclose(mixed(toy.speech()), alone)


@torch.no_grad()
def test_what_an_active_mixer_is_over_runs_inside_it_alone():
    mixed = model(Bottleneck(width=4, zero_up=False))
    with mixed.using("mix"):
        alone = mixed(toy.speech())
        assert [row.active for row in describe.rows(mixed)] == [True, True, True]
    assert mixed.active == ("a", "b", "mix"), "as every model begins"
    assert torch.equal(mixed(toy.speech()), alone)


@torch.no_grad()
def test_where_no_mixer_sits_an_adapter_runs_by_itself():
    mixed = model(Bottleneck(width=4, zero_up=False), sites=("layers.0.ffn",))
    with mixed.using("a", "mix"):
        both = mixed(toy.speech())
    with mixed.using("a"):
        torch.testing.assert_close(both, mixed(toy.speech()))  # b is as a, below; above a is alone
    with mixed.using("mix"):
        assert not torch.allclose(mixed(toy.speech()), both)


def test_a_context_field_is_asked_for_inside_a_mixer_too():
    mixed = model(Task(), over=("a",))
    with mixed.using("mix"), pytest.raises(ConfigError, match=r"adapter 'a' reads Context\.task"):
        mixed(toy.speech())
    with mixed.using("mix"):
        mixed(toy.speech(), ctx=Context(task=torch.tensor([0, 1])))


@torch.no_grad()
def test_a_mixer_of_mixers_is_mixed_like_any_other():
    method = Bottleneck(width=4, form="series_input", zero_up=False, sites=("*.ffn.up",))
    methods = {"a": method, "b": method, "in": Mixes(sites=method.sites)}
    mixed = AdaptedModel(
        toy.toy(), toy.sites(), {**methods, "mix": Mixes(sites=method.sites, over=("in", "a"))}
    )
    mixed.adapters["b"].load_state_dict(mixed.adapters["a"].state_dict())
    with mixed.using("a"):
        alone = mixed(toy.speech())
    torch.testing.assert_close(mixed(toy.speech()), alone)


@torch.no_grad()
def test_a_mixer_computes_in_its_own_precision_and_hears_its_peers_in_it():
    class Doubled(Mean):
        def __init__(self, over: tuple[str, ...]):
            super().__init__(over)
            self.gain = nn.Parameter(torch.ones((), dtype=torch.double))

        def forward(self, x: Tensor, y: Tensor, outputs: list[Tensor], ctx: Context) -> Tensor:
            assert {t.dtype for t in (x, y, *outputs)} == {torch.double}
            return super().forward(x, y, outputs, ctx) * self.gain

    class Doubles(Mixes):
        def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Mixer:
            return Doubled(self.over)

    mixed = AdaptedModel(
        toy.toy().bfloat16(),
        toy.sites(),
        {"a": Lora(rank=2), "mix": Doubles(over=("a",), sites=Lora().sites)},
    )
    assert mixed(toy.speech().bfloat16()).dtype == torch.bfloat16


class AddsKeys(Adapter):
    def added(self, x: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        raise AssertionError


class Keys(Mixes):
    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> Adapter:
        return AddsKeys()


BEFORE = Bottleneck(width=4, form="series_input")


@pytest.mark.parametrize(
    ("method", "mix", "refusal"),
    [
        (Lora(), {"over": ("a", "telefone")}, "mixer 'mix' is over 'telefone', and no"),
        (Lora(), {"sites": ("*.attn",)}, r"attn: mixer 'mix' is over 'a', which does not sit"),
        (Lora(), {"over": ()}, "is over no adapter"),
        (Lora(), {"over": ("mix",)}, "mixer 'mix' is over itself: mix over mix"),
        (BEFORE, {"outputs_alone": True}, "'a', a bottleneck, which changes what enters"),
        (Coda(width=4, preset="ffn"), {}, "'a', a coda, which chooses the frames"),
        (Streams(), {}, "'a', a thrice, which runs the batch several times over"),
        (Keys(sites=("*.attn",)), {}, "'a', a mixes, which gives the attention keys"),
    ],
)  # fmt: skip
def test_what_a_mixer_cannot_mix_is_refused_when_the_model_is_made(method, mix, refusal):
    base = toy.toy()
    methods = {"a": method, "b": method, "mix": Mixes(**{"sites": method.sites, **mix})}
    with pytest.raises(ConfigError, match=refusal):
        AdaptedModel(base, toy.sites(), methods)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())


def test_frames_that_are_added_cannot_be_mixed():
    from speech_peft.backbones.families import tiny

    backbone = tiny("whisper", context="fit")
    prompt = Prompt(preset="shallow", frames=3)
    with pytest.raises(ConfigError, match="'a', a prompt, which changes the number of frames"):
        AdaptedModel(
            backbone.module, backbone.sites(), {"a": prompt, "mix": Mixes(sites=prompt.sites, over=("a",))}
        )
