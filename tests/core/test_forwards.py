"""What a forward leaves behind: nothing, however it ended."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import Tensor, nn

from speech_peft.backbones.families import tiny
from speech_peft.core.context import Context
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.prompt import Prompt
from tests import toy

from .test_streams import Streams

SPANS = ("layers.1.tail", "layers.1.ffn", "layers.1.attn", "layers.1.attn.v", "layers.1.block")


def adapted(*sites: str) -> AdaptedModel:
    model = AdaptedModel(toy.toy(), toy.sites(), {"a": Bottleneck(width=4, sites=sites, zero_up=False)})
    model.current.ctx = Context(mask=torch.ones(2, 5, dtype=torch.bool))
    return model


def break_(module: nn.Module) -> "torch.utils.hooks.RemovableHandle":
    def fail(module: nn.Module, args: object) -> None:
        raise RuntimeError("broken on purpose")

    return module.register_forward_pre_hook(fail)


@pytest.mark.parametrize("broken", ["attn.o", "down", "drop"])
@pytest.mark.parametrize(
    ("site", "run"),
    [(site, run) for site in SPANS for run in ("model", "base", "block")]
    + [("stack", "model"), ("stack", "base")],
)
def test_an_error_anywhere_in_a_span_leaves_nothing_behind(site, broken, run):
    model = adapted(site)
    ways = {"model": model, "base": model.base, "block": model.base.layers[1]}
    with torch.no_grad():
        expected = ways[run](toy.speech())
    handle = break_(model.base.layers[1].get_submodule(broken))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="on purpose"):
            ways[run](toy.speech())
        assert model.current.passages == []
    handle.remove()
    with torch.no_grad():
        again = ways[run](toy.speech())
    torch.testing.assert_close(again, expected, rtol=0, atol=0)


def test_an_error_inside_a_span_of_streams_does_not_change_the_next_call():
    model = AdaptedModel(toy.toy(), toy.sites(), {"three": Streams()})
    expected = model(toy.speech())
    handle = break_(model.base.layers[1].down)
    with pytest.raises(RuntimeError, match="on purpose"):
        model.base(toy.speech())
    handle.remove()
    assert model.current.here.streams == 1
    assert torch.equal(model(toy.speech()), expected)


def test_half_a_span_that_somebody_runs_is_forgotten_when_it_is_entered_again():
    model = AdaptedModel(toy.toy(), toy.sites(), {"three": Streams()})
    for _ in range(3):
        (half,) = model.base.layers[0](toy.speech())
        assert len(half) == 6
        assert model.current.here.streams == 3
    assert len(model.current.passages) == 1
    model(toy.speech())


def test_an_error_that_the_base_swallows_inside_a_span_leaves_the_span_as_it_was():
    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            try:
                self.inner(x[..., :2])
            except RuntimeError:
                return self.outer(x)
            raise AssertionError

    sites = [
        Site("layers.0.block", "block", "0", "0", 4, 4),
        Site("in", "linear", "0.inner", "0.inner", 4, 4),
    ]
    base = nn.Sequential(Tries()).requires_grad_(False)
    methods = {"a": Bottleneck(width=2, sites=("*",), form="series", zero_up=False)}
    model = AdaptedModel(base, sites, methods)
    part = model.at("a", model.sites["a"][0])
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(model(x), part(x, base[0].outer(x), Context()))
    assert model.current.passages == []


def test_a_forward_inside_a_forward_disturbs_neither():
    model = adapted(*SPANS, "stack")
    with torch.no_grad():
        expected = model(toy.speech())
        once: list[Tensor] = []

        def inner(module: nn.Module, args: object) -> None:
            if not once:
                once.append(torch.empty(0))
                once[0] = model(toy.speech())

        model.base.layers[1].drop.register_forward_pre_hook(inner)
        outer = model(toy.speech())
    assert torch.equal(once[0], expected)
    assert torch.equal(outer, expected)


@pytest.mark.parametrize("site", SPANS)
def test_after_a_recomputed_backward_nothing_of_the_forward_lives(site):
    model = adapted(site.replace("1", "*"))
    model.recompute()
    alive: list[weakref.ref[Tensor]] = []
    model.base.layers[1].up.register_forward_hook(lambda m, a, y: alive.append(weakref.ref(y)))
    model(toy.speech()).sum().backward()
    assert len(alive) == 2, "the block ran again"
    gc.collect()
    assert model.current.passages == []
    assert [ref for ref in alive if ref() is not None] == []
    copy.deepcopy(model)


def test_no_activation_travels_with_a_copy():
    model = adapted("stack")
    model.base.layers[0](toy.speech())  # enters the span, and does not leave it
    assert len(model.current.passages) == 1
    assert copy.deepcopy(model).current.passages == []
    assert pickle.loads(pickle.dumps(model.current)).passages == []


@torch.no_grad()
def test_states_of_a_lower_block_may_be_asked_for_twice_under_a_context_of_the_caller():
    backbone = tiny("whisper", context="fit")
    methods = {"prompt": Prompt(preset="shallow", frames=3), "three": Streams()}
    model = AdaptedModel(backbone.module, backbone.sites(), methods)
    features = backbone.prepare(0.1 * torch.randn(2, 8000), torch.tensor([8000, 6400]))
    states = backbone.prefix(features, 0)
    known = backbone._known(features, states)
    with model.context(known.completed(Context(mask=known.sound, summary=(0, 0)))):
        first = backbone.layer_from(0, states, features, 1)
        assert model.current.here.streams == 1
        torch.testing.assert_close(backbone.layer_from(0, states, features, 1), first, rtol=0, atol=0)
        torch.testing.assert_close(backbone.encode_layers(features)[0], first)
