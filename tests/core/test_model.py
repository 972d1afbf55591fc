"""The adapted model: what is active, what trains, what stays stock."""

import copy
import threading
from dataclasses import replace

import pytest
import torch
from torch import nn

from speech_peft.backbones.families import tiny
from speech_peft.core.model import AdaptedModel
from speech_peft.core.passage.hooks import detach
from speech_peft.errors import ConfigError
from speech_peft.methods.affine import Affine
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.coda import Coda
from speech_peft.methods.convpass import Convpass
from speech_peft.methods.lora import Lora
from speech_peft.methods.prefix import Prefix
from speech_peft.registry import METHODS
from tests import toy


@pytest.fixture
def model() -> AdaptedModel:
    model = AdaptedModel(
        toy.toy(), toy.sites(), {"a": Bottleneck(width=4), "b": Lora(), "c": Affine()}
    ).eval()
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.normal_(std=0.3)
    return model


def test_all_adapters_are_active_at_first(model):
    assert model.active == ("a", "b", "c")


def test_using_nothing_is_the_stock_model_bit_for_bit(model):
    with model.using():
        assert torch.equal(model(toy.speech()), toy.toy()(toy.speech()))


def test_using_is_undone_behind_the_block_also_after_an_error(model):
    with model.using("b"):
        assert model.active == ("b",)
    with pytest.raises(RuntimeError), model.using("b"):
        model(torch.zeros(1))
    assert model.active == ("a", "b", "c")


def test_activate_stays(model):
    with model.using("b"):
        expected = model(toy.speech())
    model.activate("b")
    assert torch.equal(model(toy.speech()), expected)


def test_calling_the_base_or_a_part_of_it_runs_the_adapters(model):
    assert torch.equal(model.base(toy.speech()), model(toy.speech()))
    with model.using():
        (bare,) = model.base.layers[1](toy.speech())
    assert not torch.equal(model.base.layers[1](toy.speech())[0], bare)


def test_an_unknown_name_is_answered_with_the_nearest(model):
    model.adapters["telephone"] = torch.nn.ModuleDict()
    for use in (
        model.activate,
        model.trainable,
        model.parameters_of,
        lambda name: model.using(name).__enter__(),
    ):
        with pytest.raises(ConfigError, match=r"no adapter is called 'telefone'\. Did you mean 'telephone'"):
            use("telefone")


def test_exactly_the_named_adapters_train(model):
    parameters = model.trainable("b")
    assert {id(p) for p in parameters} == {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for p in parameters} == {id(p) for p in model.parameters_of("b")}


def test_training_mode_never_reaches_the_base(model):
    model.train()
    assert model.adapters.training
    assert not any(module.training for module in model.base.modules())


def test_threads_work_on_copies(model):
    expected, results = {}, {}
    for name in "abc":
        with model.using(name):
            expected[name] = model(toy.speech())

    def run(name: str, own: AdaptedModel) -> None:
        with own.using(name), torch.no_grad():
            results[name] = [own(toy.speech()) for _ in range(20)]

    threads = [threading.Thread(target=run, args=(name, copy.deepcopy(model))) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(y, expected[name]) for name in "abc" for y in results[name])


def test_attaching_draws_nothing_the_base_could_notice():
    base = toy.toy()
    before = {key: value.clone() for key, value in base.state_dict().items()}
    AdaptedModel(base, toy.sites(), {"a": Lora()})
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())


def test_a_method_at_a_wrong_site_is_refused_before_anything_is_hooked():
    base = toy.toy()
    with pytest.raises(ConfigError, match="affine cannot sit at stack"):
        AdaptedModel(base, toy.sites(), {"a": Affine(sites=("stack",))})
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())


def test_only_adapters_that_train_are_ever_in_training_mode(model):
    model.train()
    assert all(m.training for m in model.adapters.modules()), "before anybody says, all of them train"
    model.trainable("b")
    for again in (lambda: None, model.train, nn.ModuleList([model]).train):
        again()
        assert {name for name in "abc" if model.adapters[name].training} == {"b"}
        assert not any(m.training for name in "ac" for m in model.adapters[name].modules())
    model.trainable("a", "c")
    assert {name for name in "abc" if model.adapters[name].training} == {"a", "c"}
    model.eval()
    model.trainable("a")
    assert not any(m.training for m in model.adapters.modules())


def test_a_frozen_adapter_s_dropout_and_statistics_stand_still():
    old = Convpass(width=4, kernel=3)
    methods = {"old": old, "lora": Lora(dropout=0.5), "new": Bottleneck(width=4, zero_up=False)}
    model = AdaptedModel(toy.toy(), [replace(s, fixed_length=False) for s in toy.sites()], methods)
    with torch.no_grad():
        for p in model.adapters.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.trainable("new")
    model.train()
    before = {key: value.clone() for key, value in model.adapters["old"].state_dict().items()}
    first = model(toy.speech())
    first.sum().backward()
    assert torch.equal(model(toy.speech()), first), "no dropout"
    for key, value in model.adapters["old"].state_dict().items():
        assert torch.equal(value, before[key]), key


def test_named_twice_is_refused(model):
    for use in (model.activate, model.trainable, lambda *names: model.using(*names).__enter__()):
        with pytest.raises(ConfigError, match="adapter 'a' is named twice"):
            use("a", "a")


def test_detached_the_base_is_the_stock_object_again():
    backbone = tiny("whisper", context="fit")
    stock = copy.deepcopy(backbone.module)
    implementation = stock.config._attn_implementation
    methods = {"a": Bottleneck(width=4, zero_up=False), "b": Prefix(frames=2), "c": Coda(width=4)}
    model = AdaptedModel(backbone.module, backbone.sites(), methods)
    model.recompute()
    assert model.detach() is backbone.module
    assert vars(stock).keys() == vars(backbone.module).keys()
    for own, other in zip(backbone.module.modules(), stock.modules(), strict=True):
        assert vars(own).keys() == vars(other).keys()
        assert not own._forward_hooks
        assert not own._forward_pre_hooks
        assert not own._forward_hooks_always_called
        assert not own._forward_pre_hooks_with_kwargs
    assert backbone.module.config._attn_implementation == implementation
    features = backbone.prepare(0.1 * torch.randn(1, 8000), torch.tensor([8000]))
    encoded = backbone.encode(features).states
    model.detach()  # once more changes nothing
    with pytest.raises(ConfigError, match="was detached"):
        model(features.values)
    twin = copy.copy(backbone)
    twin.module = stock
    assert torch.equal(twin.encode(features).states, encoded)


def test_at_the_end_of_a_block_the_adapters_are_off_also_after_an_error():
    base = toy.toy()
    expected = toy.toy()(toy.speech())
    with pytest.raises(RuntimeError), AdaptedModel(base, toy.sites(), {"a": Bottleneck(width=4)}) as model:
        model(torch.zeros(1))
    assert torch.equal(base(toy.speech()), expected)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())
    with AdaptedModel(base, toy.sites(), {"b": Affine()}) as other:
        other(toy.speech())


def test_a_second_model_on_one_base_is_refused_by_the_first_one_s_adapters(model):
    for base in (model.base, copy.deepcopy(model.base), torch.nn.ModuleList([model.base])):
        with pytest.raises(ConfigError, match=r"another AdaptedModel already, 'a', 'b', 'c'.*detach\(\)"):
            AdaptedModel(base, toy.sites(), {"d": Lora()})
    model.detach()
    AdaptedModel(model.base, toy.sites(), {"d": Lora()})


def test_a_base_whose_model_is_gone_can_be_freed():
    base = toy.toy()
    AdaptedModel(base, toy.sites(), {"a": Affine()})
    detach(base)
    AdaptedModel(base, toy.sites(), {"b": Affine()})


@torch.no_grad()
def test_one_more_adapter_runs_where_it_is_named_and_changes_nothing_else(model):
    before, x = model(toy.speech()), toy.speech()
    model.add("d", Bottleneck(width=3, zero_up=False))
    assert torch.equal(model(x), before), "it is not active by itself"
    assert not any(p.requires_grad for p in model.parameters_of("d"))
    with model.using("d"):
        alone = model(x)
    assert not torch.equal(alone, before)
    with model.using_rows("d", None):
        torch.testing.assert_close(model(x)[0], alone[0])
    for name, method, message in (("d", Lora(), "'d' already"), ("e", Lora(sites=("*.ffn",)), "e")):
        with pytest.raises(ConfigError, match=message):
            model.add(name, method)
    assert list(model.methods) == list(model.sites) == list(model.adapters) == ["a", "b", "c", "d"]
    model.detach()
    model.reattach()
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", METHODS.names())
def test_a_fresh_adapter_is_where_its_site_is(name):
    for method in METHODS[name].examples():  # none of "none", which has no adapter
        backbone = toy.backbone_for(name)
        backbone.module.to("meta")
        model = AdaptedModel(backbone.module, backbone.sites(), {**method.company(), "a": method})
        tensors = [*model.adapters.named_parameters(), *model.adapters.named_buffers()]
        tensors += [*model.shared.named_parameters(), *model.shared.named_buffers()]
        assert tensors
        assert [key for key, value in tensors if value.device.type != "meta"] == []
