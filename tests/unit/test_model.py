"""The adapted model: what is active, what trains, what stays stock."""

import copy
import threading

import pytest
import torch

from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.affine import Affine
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.lora import Lora
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
